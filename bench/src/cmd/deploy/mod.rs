//! `stallbench deploy`: ready files for the engines that run a server past what one supervisor does: systemd, HAProxy, Kubernetes, Compose.

use crate::catalog::{self, Program, Server};
use crate::cli::{Deploy, Engine, Host};
use crate::console::output::{print, say};
use crate::console::usage::refuse;
use crate::process::deploy::package;
use anyhow::{Context, Result};
use std::fs;
use std::process::ExitCode;

const SOCKET: &str = include_str!("socket");
const SERVICE: &str = include_str!("service");
const HAPROXY: &str = include_str!("haproxy.cfg");
const KUBERNETES: &str = include_str!("kubernetes.yaml");
const COMPOSE: &str = include_str!("compose.yaml");
const K6: &str = include_str!("k6.js");
const LOCUST: &str = include_str!("locustfile.py");
/// T of the blockers that load engines send, in ms, and their numbers: those of collateral.
const BLOCKERS: (u32, [usize; 6]) = (110, [0, 1, 2, 4, 16, 64]);

/// Where containers resolve one another's names.
const DOCKER_NAMES: &str = "\nresolvers docker\n    nameserver dns 127.0.0.11:53\n";

/// Prints the files, or writes them into a folder.
///
/// # Errors
/// A server that others wrote, or one that cannot be as many as asked; a folder that cannot be written.
pub fn run(arguments: &Deploy) -> Result<ExitCode> {
    let server = catalog::find(&catalog::load()?, &arguments.name)?;
    let files = files(arguments, &server)?;
    let Some(folder) = &arguments.out else {
        let texts: Vec<String> = files.into_iter().map(|(_, text)| text).collect();
        print(&texts.join("\n"))?;
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        say(&format!("{}: written", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// The files of an engine, each with its name.
///
/// # Errors
/// A server that others wrote, or one that cannot be as many as asked.
pub fn files(arguments: &Deploy, server: &Server) -> Result<Vec<(String, String)>> {
    let values = Values::new(arguments, server)?;
    let name = &values.name;
    Ok(match arguments.engine {
        Engine::Systemd => {
            vec![(format!("{name}.socket"), values.fill(SOCKET)), (format!("{name}.service"), values.fill(SERVICE))]
        }
        Engine::Haproxy => vec![("haproxy.cfg".into(), values.fill(HAPROXY))],
        Engine::Kubernetes => vec![(format!("{name}.yaml"), values.fill(KUBERNETES))],
        Engine::Compose => vec![("compose.yaml".into(), values.fill(COMPOSE))],
        Engine::K6 => vec![("k6.js".into(), values.fill(K6))],
        Engine::Locust => vec![("locustfile.py".into(), values.fill(LOCUST))],
    })
}

/// What stands in the place of each `{{word}}`.
struct Values {
    name: String,
    pairs: Vec<(&'static str, String)>,
}

impl Values {
    fn new(arguments: &Deploy, server: &Server) -> Result<Self> {
        let Program::Package(_) = &server.program else {
            refuse!("{} was written by others: deploy it as its authors say", server.name);
        };
        let instances = usize::from(arguments.instances);
        let mut more = arguments.knobs.clone();
        let is_load = matches!(arguments.engine, Engine::K6 | Engine::Locust);
        if instances > 1 && !is_load && !server.args.iter().any(|argument| argument.contains("{W}")) {
            if server.is_one_process {
                refuse!("{} is one process with one thread: for more, name more --hosts", server.name);
            }
            more.extend(["--processes".into(), instances.to_string()]);
        }
        let address = arguments.listen;
        let is_contained = matches!(arguments.engine, Engine::Kubernetes | Engine::Compose);
        if is_contained {
            more.extend(["--listen".into(), address.to_string()]);
        }
        let command = package::command(server, instances, &more);
        let words = |word: &std::ffi::OsStr| word.to_string_lossy().into_owned();
        let program = if is_contained {
            words(package::binary(&server.program).file_name().unwrap_or_default())
        } else {
            words(command.get_program())
        };
        let args: Vec<String> = command.get_args().map(words).collect();
        let whole: Vec<String> = std::iter::once(program.clone()).chain(args.iter().cloned()).collect();
        let name = server.name.replace('@', "-");
        let backends = backends(&name, arguments);
        let mut values = Values {
            pairs: vec![
                ("about", server.about.replace("W ", &format!("{instances} "))),
                // systemd gives percent signs a meaning.
                ("command", shell_words::join(&whole).replace('%', "%%")),
                ("command_list", serde_json::to_string(&whole)?),
                ("program", serde_json::to_string(&[&program])?),
                ("arguments", serde_json::to_string(&args)?),
                ("listen", address.to_string()),
                ("port", address.port().to_string()),
                ("instances", instances.to_string()),
                ("count", arguments.hosts.len().to_string()),
                ("balance", arguments.balance.to_string()),
                ("image", serde_json::to_string(arguments.image.as_ref().unwrap_or(&format!("{name}:latest")))?),
                ("servers", backends),
                ("target", format!("http://{}", arguments.hosts[0].with_port(address.port()))),
                ("segments", segments(instances)),
                ("block", BLOCKERS.0.to_string()),
                ("blockers", BLOCKERS.1.map(|k| k.to_string()).join(", ")),
                ("spaced_blockers", BLOCKERS.1.map(|k| k.to_string()).join(" ")),
                ("name", name.clone()),
            ],
            name,
        };
        let indented = |line: &str| if line.is_empty() { String::new() } else { format!("      {line}") };
        let haproxy: Vec<String> = values.fill(HAPROXY).lines().map(indented).collect();
        values.pairs.push(("haproxy", haproxy.join("\n")));
        Ok(values)
    }

    fn fill(&self, template: &str) -> String {
        self.pairs.iter().fold(template.to_owned(), |text, (word, value)| text.replace(&format!("{{{{{word}}}}}"), value))
    }
}

/// The lines of HAProxy that name the hosts.
fn backends(name: &str, arguments: &Deploy) -> String {
    let port = arguments.listen.port();
    if arguments.engine == Engine::Compose {
        let count = arguments.hosts.len();
        return format!("    server-template {name}- {count} {name}:{port} resolvers docker init-addr libc,none\n{DOCKER_NAMES}");
    }
    // A host without a port has that of the balancer.
    let line = |(number, host): (usize, &Host)| format!("    server host{} {}", number + 1, host.with_port(port));
    arguments.hosts.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

/// A command of k6 for each load generator, in comments.
fn segments(count: usize) -> String {
    let at = |index: usize| match index {
        0 => "0".to_owned(),
        _ if index == count => "1".into(),
        _ => format!("{index}/{count}"),
    };
    let sequence = (0..=count).map(at).collect::<Vec<_>>().join(",");
    let line = |index: usize| {
        let segment = format!("--execution-segment {}:{} --execution-segment-sequence {sequence}", at(index), at(index + 1));
        format!("//   k6 run --out json=k6-{}.json {segment} k6.js", index + 1)
    };
    (0..count).map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn printed(line: &str) -> String {
        let words = format!("stallbench deploy {line}");
        let Command::Deploy(arguments) = Cli::try_parse_from(words.split(' ')).expect(line).command else { panic!("{line}") };
        let all = catalog::load().expect("servers");
        let server = all.iter().find(|server| matches!(server.program, Program::Package(_)) && server.args.len() > 2);
        let files = files(&arguments, server.expect("a server with threads or processes")).expect(line);
        files.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn every_word_of_every_template_is_filled_in() {
        for engine in ["systemd", "haproxy", "kubernetes", "compose", "k6", "locust"] {
            let text = printed(&format!("{engine} any -i 3 --hosts a,b:81,c"));
            assert!(!text.contains("{{") && !text.contains("}}"), "{text}");
        }
    }

    #[test]
    fn hosts_have_the_port_of_the_balancer_unless_they_name_their_own() {
        let text = printed("haproxy any --hosts a,b:81 --balance leastconn --listen 0.0.0.0:8080");
        assert!(text.contains("server host1 a:8080\n    server host2 b:81\n") && text.contains("balance leastconn"), "{text}");
    }

    #[test]
    fn addresses_of_ipv6_are_in_brackets() {
        for host in ["::1", "[::1]"] {
            assert!(printed(&format!("haproxy any --hosts {host}")).contains("server host1 [::1]:8080\n"));
        }
        assert!(printed("k6 any --hosts [::1]:81").contains("'http://[::1]:81'"));
    }

    #[test]
    fn what_would_break_a_file_is_refused() {
        for words in [
            &["--hosts", ","][..],
            &["--hosts", "a,"],
            &["--hosts", "http://x/"],
            &["--hosts", "a:99999"],
            &["--hosts", "a:0"],
            &["--hosts", "a:"],
            &["--hosts", "[::1"],
            &["--hosts", "-a"],
            &["--hosts", "a\n    server evil b:1 check"],
            &["--hosts", "a';alert(1)//"],
            &["--image", "x: y\n z"],
            &["--image", "x:"],
            &["--image", ""],
            &["--image", "x y"],
            &["--image", "Ubuntu"],
            &["--listen", "0.0.0.0:0"],
        ] {
            let all = [&["stallbench", "deploy", "haproxy", "any"], words].concat();
            assert_eq!(Cli::try_parse_from(all).expect_err(&words.join(" ")).exit_code(), 2);
        }
    }

    #[test]
    fn names_of_images_are_read_as_words() {
        for image in ["123", "host:5000/team/app:1.0", "ghcr.io/a/b__c@sha256:0123456789abcdef0123456789abcdef"] {
            for engine in ["kubernetes", "compose"] {
                let text = printed(&format!("{engine} any --image {image}"));
                assert!(text.contains(&format!("image: \"{image}\"")), "{text}");
            }
        }
    }
}
