//! Words of a server, made fit for a terminal.

use serde_json::Value;

/// The most of a server's message that is shown, in characters.
const LIMIT_CHARS: usize = 400;

/// Escapes control characters (a terminal obeys ESC, and C1 controls as well) and direction marks, and cuts.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::new();
    for (n, c) in text.trim().chars().enumerate() {
        if n == LIMIT_CHARS {
            out.push('…');
            break;
        }
        match c {
            '\n' | '\t' | '\r' => out.push(' '),
            c if c.is_control() || is_invisible(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// Zero-width characters and those that turn the direction of text.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Finds the message in an error body: the distribution spec's `errors`, OAuth2's `error`, or short plain text.
pub(crate) fn message_of(body: &[u8]) -> Option<String> {
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        return message_of_json(&value);
    }
    let text = std::str::from_utf8(body).ok()?.trim();
    let is_markup = text.starts_with('<');
    (!text.is_empty() && !is_markup).then(|| escape(text))
}

fn message_of_json(value: &Value) -> Option<String> {
    if let Some(errors) = value.get("errors").and_then(Value::as_array) {
        let words: Vec<_> = errors.iter().take(3).filter_map(one_error).collect();
        return (!words.is_empty()).then(|| words.join("; "));
    }
    let text = |key| value.get(key).and_then(Value::as_str);
    let words = text("error_description")
        .or_else(|| text("details"))
        .or_else(|| text("message"))
        .or_else(|| text("error"));
    words.map(escape)
}

fn one_error(error: &Value) -> Option<String> {
    let code = error.get("code").and_then(Value::as_str).unwrap_or_default();
    let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
    match (code, message) {
        ("", "") => None,
        (code, "") => Some(escape(code)),
        ("", message) => Some(escape(message)),
        (code, message) => Some(format!("{} ({})", escape(message), escape(code))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_and_harmless() {
        for (body, words) in [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#,
                "manifest unknown (MANIFEST_UNKNOWN)",
            ),
            (r#"{"errors":[{"code":"X"},{"message":"y"},7]}"#, "X; y"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            ("plain\nwords\x1b[2J", "plain words\\u{1b}[2J"),
            ("\u{9b}31m\u{202e}x", "\\u{9b}31m\\u{202e}x"),
        ] {
            assert_eq!(message_of(body.as_bytes()).as_deref(), Some(words), "{body}");
        }
        for nothing in ["", "<html>", "{}", r#"{"errors":[]}"#, "[]"] {
            assert_eq!(message_of(nothing.as_bytes()), None, "{nothing}");
        }
        assert_eq!(escape(&"x".repeat(9999)).chars().count(), LIMIT_CHARS + 1);
    }
}
