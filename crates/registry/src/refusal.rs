//! An answer that is not what was asked for, in words.

use std::time::{Duration, SystemTime};

use bale_fault::Kind;
use hyper::StatusCode;

use crate::text;
use crate::trouble::{Retry, Trouble};
use crate::wire::Answer;

/// The most of an error body that is read, in bytes.
const BODY_LIMIT_BYTES: usize = 64 << 10;

/// A refusal, its body already read.
pub(crate) struct Refusal {
    pub status: StatusCode,
    line: String,
    message: Option<String>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// Reads what the server has to say.
    pub(crate) async fn of(mut answer: Answer) -> Self {
        let body = answer.read(BODY_LIMIT_BYTES).await.ok().flatten().unwrap_or_default();
        let retry_after =
            answer.header("retry-after").and_then(|text| parse_retry_after(text, SystemTime::now()));
        Self { status: answer.status, line: answer.line(), message: text::message_of(&body), retry_after }
    }

    /// Makes the failure; `registry` is for the hint.
    pub(crate) fn into_trouble(self, registry: &str) -> Trouble {
        let status = self.status;
        let mut words = format!(
            "{}: {} {}",
            self.line,
            status.as_u16(),
            status.canonical_reason().unwrap_or_default().to_lowercase()
        );
        if let Some(message) = &self.message {
            words = format!("{}: {message}", words.trim_end());
        }
        let trouble = Trouble::new(kind(status), words.trim_end(), self.retry());
        match hint(status, registry) {
            Some(hint) => trouble.hint(hint),
            None => trouble,
        }
    }

    fn retry(&self) -> Retry {
        let is_passing = matches!(self.status.as_u16(), 408 | 425 | 429 | 500 | 502..=504);
        match self.retry_after {
            Some(pause) if is_passing => Retry::After(pause),
            None if is_passing => Retry::Soon,
            _ => Retry::Never,
        }
    }
}

const fn kind(status: StatusCode) -> Kind {
    match status.as_u16() {
        401 | 403 => Kind::PermissionDenied,
        404 | 410 => Kind::NotFound,
        400 | 413 | 416 | 422 => Kind::InvalidInput,
        405 | 415 | 501 => Kind::Unsupported,
        409 => Kind::Conflict,
        _ => Kind::Unavailable,
    }
}

fn hint(status: StatusCode, registry: &str) -> Option<String> {
    match status.as_u16() {
        401 => Some(format!("`bale login {registry}` stores a user name and password for it")),
        403 => Some(format!(
            "the user that `bale login {registry}` stored may lack the right, or the repository does not exist"
        )),
        404 => Some(
            "check the name and the tag; a private repository also looks like this without a login"
                .to_owned(),
        ),
        429 => Some(format!("the registry limits requests; `bale login {registry}` often raises the limit")),
        _ => None,
    }
}

/// Reads `Retry-After` in both forms (RFC 9110, 10.2.3).
pub(crate) fn parse_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = httpdate::parse_http_date(text.trim()).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_has_two_forms() {
        let now = httpdate::parse_http_date("Fri, 31 Dec 1999 23:59:50 GMT").unwrap();
        for (text, wanted) in [
            ("7", Some(7)),
            ("Fri, 31 Dec 1999 23:59:59 GMT", Some(9)),
            ("Fri, 31 Dec 1999 23:59:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("99999999999", None),
        ] {
            assert_eq!(parse_retry_after(text, now).map(|d| d.as_secs()), wanted, "{text}");
        }
    }
}
