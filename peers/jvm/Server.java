import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.BindException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executor;
import java.util.concurrent.Executors;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import sun.misc.Signal;

/**
 * The routes of Stallbench on the JDK's own HTTP server: a virtual thread for each request.
 *
 * <p>A virtual thread that sleeps, waits for a lock or for I/O leaves its carrier, so blocking of that kind delays nobody. One that
 * computes keeps its carrier, of which there are as many as --threads says: nothing preempts it.
 */
public final class Server {
    private static final String PAGE = "This is the regular page. It should answer at once.\n";
    private static final Pattern TIME = Pattern.compile("([0-9]{1,9})(ms|s|m)");
    private static final Map<String, Integer> UNITS = Map.of("ms", 1, "s", 1000, "m", 60_000);
    private static final String READS = "GET, HEAD";
    private static final Map<String, String> METHODS = Map.of(
            "/", READS, "/healthz", READS, "/timer", READS, "/sleep", READS, "/json/stringify", READS, "/sort", READS,
            "/pbkdf2", READS, "/panic", READS, "/json/parse", "POST");
    private static final int MOST_BODY = 1 << 20;

    private static volatile boolean isDraining;

    private final Map<String, String> knobs;
    private final double maxBlock;
    private final String worker = Long.toString(ProcessHandle.current().pid());

    private Server(Map<String, String> knobs) {
        this.knobs = knobs;
        this.maxBlock = milliseconds(knobs, "max-block");
    }

    public static void main(String[] arguments) throws IOException {
        Map<String, String> knobs = new HashMap<>(Map.of(
                "model", "virtual-threads", "listen", "127.0.0.1:0", "threads", "2", "max-block", "60s", "drain", "10s",
                "drain-idle", "2s", "header-timeout", "10s", "request-timeout", "60s", "idle-timeout", "75s"));
        boolean isVersion = false;
        for (int at = 0; at < arguments.length; at++) {
            String name = arguments[at].startsWith("--") ? arguments[at].substring(2) : "";
            if (name.equals("version")) {
                isVersion = true;
            } else if (!knobs.containsKey(name)) {
                fail(2, "unknown argument '" + arguments[at] + "'; valid: --version, --" + String.join(", --", knobs.keySet()));
            } else if (++at == arguments.length) {
                fail(2, "--" + name + " takes a value");
            } else {
                knobs.put(name, arguments[at]);
            }
        }
        if (!knobs.get("model").equals("virtual-threads")) {
            fail(2, "--model '" + knobs.get("model") + "' is unknown; the only valid value is virtual-threads");
        }
        if (!knobs.get("threads").matches("[1-9][0-9]{0,3}")) {
            fail(2, "--threads '" + knobs.get("threads") + "' is not a whole number from 1 to 9999");
        }
        for (String name : List.of("max-block", "drain", "drain-idle", "header-timeout", "request-timeout", "idle-timeout")) {
            milliseconds(knobs, name);
        }
        if (isVersion) {
            System.out.println(receipt(knobs));
        } else {
            new Server(knobs).serve();
        }
    }

    private void serve() throws IOException {
        System.setProperty("jdk.virtualThreadScheduler.parallelism", knobs.get("threads"));
        System.setProperty("sun.net.httpserver.nodelay", "true");
        System.setProperty("sun.net.httpserver.maxIdleConnections", "1000000");
        // How often it looks for connections that are past a limit, in ms.
        System.setProperty("sun.net.httpserver.clockTick", "200");
        System.setProperty("sun.net.httpserver.idleInterval", seconds("idle-timeout"));
        System.setProperty("sun.net.httpserver.maxReqTime", seconds("request-timeout"));
        Matcher listen = Pattern.compile("(.+):([0-9]{1,5})").matcher(knobs.get("listen"));
        if (!listen.matches() || Integer.parseInt(listen.group(2)) > 65535) {
            fail(2, "--listen '" + knobs.get("listen") + "' is not an address; write HOST:PORT");
        }
        String host = listen.group(1).replaceAll("^\\[|]$", "");
        HttpServer server = null;
        try {
            server = HttpServer.create(new InetSocketAddress(InetAddress.getByName(host), Integer.parseInt(listen.group(2))), 4096);
        } catch (BindException error) {
            String why = error.getMessage().toLowerCase();
            fail(1, "cannot listen on " + knobs.get("listen") + ": " + why + "; choose another address with --listen");
        } catch (IOException error) {
            fail(1, "cannot listen on " + knobs.get("listen") + ": " + error.getMessage());
        }
        server.setExecutor(virtualThreads());
        server.createContext("/", this::handle);
        server.start();
        HttpServer started = server;
        int drain = Integer.parseInt(seconds("drain"));
        for (String name : List.of("TERM", "INT")) {
            Signal.handle(new Signal(name), signal -> {
                if (isDraining) {
                    // A second signal means that its sender does not want to wait.
                    Runtime.getRuntime().halt(143);
                }
                isDraining = true;
                new Thread(() -> {
                    started.stop(drain);
                    Runtime.getRuntime().halt(0);
                }).start();
            });
        }
        InetSocketAddress address = server.getAddress();
        String shown = address.getAddress().getHostAddress();
        System.out.println("ready http://" + (shown.contains(":") ? "[" + shown + "]" : shown) + ":" + address.getPort());
    }

    /** By reflection, so that an older compiler can compile it: a JRE of version 21 or later runs it. */
    private static Executor virtualThreads() {
        try {
            return (Executor) Executors.class.getMethod("newVirtualThreadPerTaskExecutor").invoke(null);
        } catch (ReflectiveOperationException error) {
            fail(1, "Java " + System.getProperty("java.version") + " has no virtual threads: it takes 21 or later");
            return null;
        }
    }

    private void handle(HttpExchange exchange) throws IOException {
        Answer answer;
        try (exchange) {
            byte[] document = exchange.getRequestBody().readNBytes(MOST_BODY + 1);
            String method = exchange.getRequestMethod();
            String path = exchange.getRequestURI().getPath();
            String allow = METHODS.get(path);
            Headers headers = exchange.getResponseHeaders();
            if (allow == null) {
                answer = Answer.text(404, "there is nothing here; try /, /timer?ms=9000, /sleep?ms=1000 or /healthz\n");
            } else if (!List.of(allow.split(", ")).contains(method)) {
                headers.set("Allow", allow);
                answer = Answer.text(405, path + " takes " + allow + "\n");
            } else {
                answer = document.length > MOST_BODY
                        ? Answer.text(413, "body: too long\n")
                        : answer(path, new Query(exchange.getRequestURI().getRawQuery()), document);
            }
            headers.set("Content-Type", answer.type());
            headers.set("X-Worker", worker);
            if (isDraining) {
                headers.set("Connection", "close");
            }
            byte[] body = answer.body();
            if (method.equals("HEAD")) {
                headers.set("Content-Length", Integer.toString(body.length));
                exchange.sendResponseHeaders(answer.status(), -1);
            } else {
                exchange.sendResponseHeaders(answer.status(), body.length);
                exchange.getResponseBody().write(body);
            }
        }
    }

    private Answer answer(String path, Query query, byte[] document) {
        try {
            return switch (path) {
                case "/healthz" -> isDraining ? Answer.text(503, "draining\n") : Answer.text(200, "ready\n");
                case "/timer" -> Work.timer(query.length(maxBlock), query.clock());
                case "/sleep" -> Work.sleep(query.length(maxBlock));
                case "/json/stringify" -> Work.stringify(query.number("items", 10_000, 0, 1_000_000));
                case "/json/parse" -> Work.parse(document);
                case "/sort" -> Work.sort(query.number("items", 100_000, 0, 10_000_000));
                case "/pbkdf2" -> Work.pbkdf2(query.number("iterations", 100_000, 1, 10_000_000));
                case "/panic" -> throw new IllegalStateException("a request to /panic asked for this");
                default -> Answer.text(200, PAGE);
            };
        } catch (Query.Refused refused) {
            return Answer.text(400, refused.getMessage());
        } catch (Exception | StackOverflowError | OutOfMemoryError failed) {
            return Answer.text(500, "the handler panicked\n");
        }
    }

    /** For settings that count in seconds: never 0, which means something else to them. */
    private String seconds(String name) {
        return Long.toString(Math.max(1, (milliseconds(knobs, name) + 999) / 1000));
    }

    private static long milliseconds(Map<String, String> knobs, String name) {
        Matcher found = TIME.matcher(knobs.get(name));
        if (!found.matches()) {
            fail(2, "--" + name + " '" + knobs.get(name) + "' is not a time; write 500ms, 10s or 2m");
        }
        return Long.parseLong(found.group(1)) * UNITS.get(found.group(2));
    }

    /** The receipt, stored with every result. */
    private static String receipt(Map<String, String> knobs) {
        String java = System.getProperty("java.vm.name") + " " + System.getProperty("java.runtime.version");
        StringBuilder given = new StringBuilder("\"processes\": \"1\"");
        for (String name : List.of("threads", "max-block", "drain", "header-timeout", "request-timeout", "idle-timeout")) {
            given.append(String.format(", \"%s\": \"%s\"", name, knobs.get(name)));
        }
        return String.format(
                "{\"server\": \"jvm-virtual-threads\", \"runtime\": \"jvm\", \"runtime_version\": \"%s\", \"model\": \"virtual-threads\", "
                        + "\"allocator\": \"of the JVM\", \"compiler\": \"%s\", \"profile\": \"release\", \"target\": \"%s-linux\", "
                        + "\"rustflags\": \"\", \"handler_threads\": \"%s\", \"io_threads\": \"1\", \"knobs\": {%s}}",
                java, java, System.getProperty("os.arch"), knobs.get("threads"), given);
    }

    private static void fail(int code, String message) {
        System.err.println("jvm: " + message);
        Runtime.getRuntime().halt(code);
    }

    /** An answer. */
    record Answer(int status, String type, byte[] body) {
        static Answer text(int status, String body) {
            return new Answer(status, "text/plain; charset=utf-8", body.getBytes(StandardCharsets.UTF_8));
        }

        static Answer json(String body) {
            return new Answer(200, "application/json", body.getBytes(StandardCharsets.UTF_8));
        }
    }
}
