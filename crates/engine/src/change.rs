//! `import --change`: Dockerfile instructions that change a config (docker import, "Options").

use bale_fault::{Fault, Kind, Result};
use bale_spec::image::ContainerConfig;
use serde_json::json;

/// Applies one instruction, such as `CMD ["redis-server"]` or `ENV A=b`.
///
/// # Errors
/// `InvalidInput` for an instruction that is not known or malformed.
pub fn change(config: &mut ContainerConfig, instruction: &str) -> Result<()> {
    let fault = |why: &str| Fault::new(Kind::InvalidInput, format!("invalid change {instruction:?}: {why}"));
    let text = instruction.trim();
    let (word, rest) =
        text.split_once(|c: char| c.is_whitespace()).map_or((text, ""), |(word, rest)| (word, rest.trim()));
    if rest.is_empty() {
        return Err(fault("want an instruction and its arguments, such as CMD [\"sh\"]"));
    }
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
        "ENV" => {
            for (key, value) in pairs(rest).ok_or_else(|| fault("want KEY=value"))? {
                let prefix = format!("{key}=");
                config.env.retain(|entry| !entry.starts_with(&prefix));
                config.env.push(format!("{key}={value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs(rest).ok_or_else(|| fault("want KEY=value"))?),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                let known = matches!(protocol, "tcp" | "udp" | "sctp");
                if number.parse::<u16>().is_err() || !known {
                    return Err(fault("want PORT or PORT/tcp|udp|sctp"));
                }
                config.exposed_ports.insert(format!("{number}/{protocol}"), json!({}));
            }
        }
        "VOLUME" => config.volumes.extend(list(rest).into_iter().map(|path| (path, json!({})))),
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" => config.working_dir = workdir(&config.working_dir, rest),
        "STOPSIGNAL" => config.stop_signal = rest.to_owned(),
        other => {
            let known = "CMD ENTRYPOINT ENV EXPOSE LABEL STOPSIGNAL USER VOLUME WORKDIR";
            return Err(fault(&format!("{other} is not one of {known}")));
        }
    }
    Ok(())
}

/// Reads the exec form (a JSON list), or the shell form, which `sh -c` runs.
fn command(text: &str) -> Vec<String> {
    exec_form(text).unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

fn exec_form(text: &str) -> Option<Vec<String>> {
    serde_json::from_str::<Vec<String>>(text).ok()
}

fn list(text: &str) -> Vec<String> {
    exec_form(text).unwrap_or_else(|| text.split_whitespace().map(str::to_owned).collect())
}

fn workdir(current: &str, next: &str) -> String {
    if next.starts_with('/') { next.to_owned() } else { format!("{}/{next}", current.trim_end_matches('/')) }
}

/// Reads `a=b c="d e"`, or the old form `key value with spaces`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text)?;
    if !words.first()?.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words
        .into_iter()
        .map(|word| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect()
}

/// Splits at blanks that are not quoted; quotes and backslashes go.
fn words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote, mut inside) = (Vec::new(), String::new(), None, false);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => word.push(letters.next()?),
            ('"' | '\'', None) => {
                quote = Some(letter);
                inside = true;
            }
            (close, Some(open)) if close == open => quote = None,
            (blank, None) if blank.is_whitespace() => {
                if inside || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                inside = false;
            }
            _ => word.push(letter),
        }
    }
    if inside || !word.is_empty() {
        words.push(word);
    }
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_config() {
        let mut config = ContainerConfig::default();
        for instruction in [
            "CMD [\"redis-server\", \"--port\", \"1\"]",
            "ENTRYPOINT exec run",
            "ENV A=1 B=\"two words\" C='x'",
            "ENV A=2",
            "env D some value",
            "LABEL a.b=c",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/data\"]",
            "VOLUME /x /y",
            "USER 1000:1000",
            "WORKDIR /srv",
            "WORKDIR app",
            "STOPSIGNAL SIGINT",
        ] {
            change(&mut config, instruction).unwrap();
        }
        assert_eq!(config.cmd.unwrap(), ["redis-server", "--port", "1"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "exec run"]);
        assert_eq!(config.env, ["B=two words", "C=x", "A=2", "D=some value"]);
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/data", "/x", "/y"]);
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("1000:1000", "/srv/app"));
        assert_eq!((config.stop_signal.as_str(), config.labels["a.b"].as_str()), ("SIGINT", "c"));
    }

    #[test]
    fn what_is_no_instruction_is_refused() {
        for bad in ["", "CMD", "RUN ls", "EXPOSE http", "EXPOSE 70000", "EXPOSE 1/x", "ENV =\"", "ENV a=\"b"]
        {
            assert!(change(&mut ContainerConfig::default(), bad).is_err(), "{bad:?}");
        }
    }
}
