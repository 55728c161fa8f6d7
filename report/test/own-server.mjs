// A server of somebody's own: /slow holds its only thread for 200 ms.

import { createServer } from "node:http";

createServer((request, response) => {
  if (request.url === "/slow") {
    const end = Date.now() + 200;
    while (Date.now() < end);
  }
  response.end("done\n");
}).listen(Number(process.argv[2]), "127.0.0.1");
