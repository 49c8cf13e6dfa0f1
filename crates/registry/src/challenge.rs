//! `WWW-Authenticate` (RFC 9110, 11.6.1): several challenges per header, several headers, quoted strings.

/// The most parameters that are read from one header.
const PARAMETER_LIMIT: usize = 32;

/// What the server wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A name and password.
    Basic,
    /// A token from `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Reads all challenges that bale understands; malformed ends and unknown schemes are passed over.
pub(crate) fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    headers.into_iter().flat_map(parse_one).collect()
}

fn parse_one(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while let Some((scheme, after)) = token(rest) {
        let (parameters, after) = parameters(after);
        found.extend(challenge(scheme, &parameters));
        let next = after.trim_start_matches([' ', '\t', ',']);
        if next.len() == rest.len() {
            break;
        }
        rest = next;
    }
    found
}

fn challenge(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let get = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    match scheme.to_ascii_lowercase().as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            let not_empty = |text: &String| !text.is_empty();
            let (service, scope) = (get("service").filter(not_empty), get("scope").filter(not_empty));
            Some(Challenge::Bearer { realm: get("realm")?, service, scope })
        }
        _ => None,
    }
}

/// Reads `name=value` pairs until something else comes: the next scheme is a token without `=`.
fn parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut list = Vec::new();
    let mut rest = text;
    loop {
        let start = rest.trim_start_matches([' ', '\t', ',']);
        let Some((name, after)) = token(start) else { return (list, start) };
        let Some(after) = after.trim_start_matches([' ', '\t']).strip_prefix('=') else {
            return (list, start);
        };
        let Some((value, after)) = value(after.trim_start_matches([' ', '\t'])) else { return (list, "") };
        if list.len() == PARAMETER_LIMIT {
            return (list, "");
        }
        list.push((name.to_ascii_lowercase(), value));
        rest = after;
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let end = text.bytes().position(|b| !is_token(b)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Some registries leave quotes out, also around URLs.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, c)) = letters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    #[test]
    fn challenges_of_real_registries() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/redis:pull""#;
        let scope = Some("repository:library/redis:pull");
        for (header, wanted) in [
            (hub, vec![bearer("https://auth.docker.io/token", Some("registry.docker.io"), scope)]),
            ("Basic realm=\"Registry Realm\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "BASIC realm=x, bearer realm=\"https://a/\"",
                vec![Challenge::Basic, bearer("https://a/", None, None)],
            ),
            ("Negotiate, Basic realm=\"a, b\"", vec![Challenge::Basic]),
            ("Bearer realm=https://a/t,service=s", vec![bearer("https://a/t", Some("s"), None)]),
            (r#"Bearer realm="a\"b", scope="""#, vec![bearer("a\"b", None, None)]),
            ("Bearer realm = \"x\" , service = \"y\"", vec![bearer("x", Some("y"), None)]),
            ("Bearer service=\"s\"", vec![]),
            ("Bearer realm=\"open", vec![]),
            ("", vec![]),
            (",,,", vec![]),
            ("=", vec![]),
            ("Bearer realm=\"é\u{1b}\"", vec![bearer("é\u{1b}", None, None)]),
        ] {
            assert_eq!(parse([header]), wanted, "{header}");
        }
    }

    #[test]
    fn no_text_makes_the_parser_spin_or_panic() {
        let alphabet = ['B', '=', '"', '\\', ',', ' ', 'é', '\t', '/'];
        for n in 0..9_u32.pow(5) {
            let text: String = (0..5).map(|i| alphabet[(n / 9_u32.pow(i) % 9) as usize]).collect();
            let _ = parse([format!("Bearer realm={text}").as_str(), text.as_str()]);
        }
        let _ = parse(["a=b,".repeat(100_000).as_str()]);
    }
}
