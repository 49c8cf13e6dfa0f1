//! Authorization: which header a request carries, and where it comes from.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Mutex as StdMutex;
use std::time::{Duration, Instant};

use bale_fault::Kind;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::challenge::Challenge;
use crate::credentials::{Credential, CredentialStore};
use crate::refusal::Refusal;
use crate::rules::{self, Trust};
use crate::session::Session;
use crate::trouble::Trouble;
use crate::url::{Scheme, Url, encode};
use crate::wire::{Answer, Outgoing, Payload};

/// The largest answer of a token service, in bytes.
const TOKEN_LIMIT_BYTES: usize = 1 << 20;
/// What a token lasts when its service does not say (distribution spec, token authentication).
const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// A token is given up this long before its end.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// What a request wants to do, in the words of the token protocol, and for which repository credentials are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub repository: String,
    words: Vec<String>,
}

impl Scope {
    pub(crate) const fn none() -> Self {
        Self { repository: String::new(), words: Vec::new() }
    }

    pub(crate) fn pull(repository: &str) -> Self {
        Self { repository: repository.to_owned(), words: vec![format!("repository:{repository}:pull")] }
    }

    pub(crate) fn push(repository: &str) -> Self {
        Self { repository: repository.to_owned(), words: vec![format!("repository:{repository}:pull,push")] }
    }

    /// Adds the right to read another repository, for a mount.
    pub(crate) fn and_pull(mut self, repository: &str) -> Self {
        self.words.push(format!("repository:{repository}:pull"));
        self
    }

    fn key(&self) -> String {
        self.words.join(" ")
    }

    /// Returns our own words and the server's; registries that map names (Artifactory) know only their own.
    fn with(&self, asked: Option<&str>) -> Vec<String> {
        let mut all: Vec<String> =
            asked.into_iter().flat_map(str::split_whitespace).take(8).map(str::to_owned).collect();
        all.extend(
            self.words.iter().filter(|own| !asked.is_some_and(|a| a.split(' ').any(|w| w == *own))).cloned(),
        );
        all
    }
}

/// Where credentials come from.
pub(crate) enum Source {
    Store(CredentialStore),
    /// The one that `login` checks; it is never held back silently.
    Given(Credential),
}

/// The authorizations of one registry.
pub(crate) struct Authorizer {
    source: Source,
    known: Mutex<HashMap<String, Known>>,
    credentials: Mutex<HashMap<String, Option<Credential>>>,
    held_back: StdMutex<Option<String>>,
}

struct Known {
    header: HeaderValue,
    until: Option<Instant>,
}

/// What a token service is asked.
struct TokenRequest<'a> {
    realm: Url,
    service: Option<&'a str>,
    scopes: Vec<String>,
    credential: Option<Credential>,
}

impl Authorizer {
    pub(crate) fn new(source: Source) -> Self {
        let (known, credentials) = (Mutex::default(), Mutex::default());
        Self { source, known, credentials, held_back: StdMutex::default() }
    }

    /// Returns the header that worked for `scope` before.
    pub(crate) async fn known(&self, scope: &Scope) -> Option<HeaderValue> {
        let known = self.known.lock().await;
        let known = known.get(&scope.key())?;
        known.until.is_none_or(|until| Instant::now() < until).then(|| known.header.clone())
    }

    /// Returns why a credential was not sent, for the hint of a refusal.
    pub(crate) fn held_back(&self) -> Option<String> {
        self.held_back.lock().ok().and_then(|why| why.clone())
    }

    /// Answers `challenges`; `None` when there is nothing (new) to offer. `used` is the header that was refused.
    pub(crate) async fn authorize(
        &self,
        session: &Session,
        challenges: &[Challenge],
        scope: &Scope,
        used: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, Trouble> {
        // One at a time: layers are fetched in parallel and want the same token.
        let mut known = self.known.lock().await;
        if let Some(other) = known.get(&scope.key())
            && Some(&other.header) != used
        {
            return Ok(Some(other.header.clone()));
        }
        known.remove(&scope.key());
        let Some(fresh) = self.answer(session, challenges, scope).await? else { return Ok(None) };
        if Some(&fresh.header) == used {
            return Ok(None);
        }
        let header = fresh.header.clone();
        known.insert(scope.key(), fresh);
        Ok(Some(header))
    }

    async fn answer(
        &self,
        session: &Session,
        challenges: &[Challenge],
        scope: &Scope,
    ) -> Result<Option<Known>, Trouble> {
        let credential = self.credential(session, scope).await?;
        if let Some(Credential::Token(token)) = &credential {
            return secret(format!("Bearer {token}")).map(|header| Some(Known { header, until: None }));
        }
        let bearer = challenges.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service, scope } => {
                Some((realm, service.as_deref(), scope.as_deref()))
            }
            Challenge::Basic => None,
        });
        match (bearer, credential) {
            (Some((realm, service, asked)), credential) => {
                let realm = Url::parse(realm).map_err(|e| {
                    let shown = crate::text::escape(&realm.chars().take(100).collect::<String>());
                    Trouble::fatal(
                        Kind::PermissionDenied,
                        format!("{} wants a token from {shown:?}: {e}", session.registry),
                    )
                })?;
                let credential = self.allowed(session, &realm, credential).await?;
                let request = TokenRequest { realm, service, scopes: scope.with(asked), credential };
                fetch_token(session, &request).await.map(Some)
            }
            (None, Some(Credential::Basic { username, password }))
                if challenges.contains(&Challenge::Basic) =>
            {
                basic(&username, &password).map(|header| Some(Known { header, until: None }))
            }
            _ => Ok(None),
        }
    }

    async fn credential(&self, session: &Session, scope: &Scope) -> Result<Option<Credential>, Trouble> {
        let store = match &self.source {
            Source::Given(credential) => return Ok(Some(credential.clone())),
            Source::Store(store) => store.clone(),
        };
        let mut credentials = self.credentials.lock().await;
        if let Some(known) = credentials.get(&scope.repository) {
            return Ok(known.clone());
        }
        let (registry, repository) = (session.registry.clone(), scope.repository.clone());
        // A helper is a program that may take its time.
        let found = tokio::task::spawn_blocking(move || store.get(&registry, &repository)).await;
        let found =
            found.map_err(|_| Trouble::fatal(Kind::Internal, "the look-up of credentials was lost"))??;
        let credential = found.map(|(credential, _)| credential);
        credentials.insert(scope.repository.clone(), credential.clone());
        Ok(credential)
    }

    /// Lets the credential go to `realm` or holds it back.
    async fn allowed(
        &self,
        session: &Session,
        realm: &Url,
        credential: Option<Credential>,
    ) -> Result<Option<Credential>, Trouble> {
        let base = session.url("/v2/").await?;
        if credential.is_none()
            || rules::realm_may_have_credentials(
                base.origin(),
                realm.origin(),
                &session.settings.trusted_realms,
            )
        {
            return Ok(credential);
        }
        let service = realm.origin().authority();
        let why = format!(
            "{} sends its users to the token service {service}, which is elsewhere; your credentials were not sent there",
            session.registry,
        );
        let how = format!("--trust-realm {service} sends them, if that is the right one");
        if matches!(self.source, Source::Given(_)) {
            return Err(Trouble::fatal(Kind::PermissionDenied, why).hint(how));
        }
        let why = format!("{why}: {how}");
        if let Ok(mut held_back) = self.held_back.lock() {
            *held_back = Some(why);
        }
        Ok(None)
    }
}

async fn fetch_token(session: &Session, request: &TokenRequest<'_>) -> Result<Known, Trouble> {
    let base = session.url("/v2/").await?;
    if base.origin().scheme == Scheme::Https && request.realm.origin().scheme == Scheme::Http {
        let words = format!("{} wants a token over plain http from {}", session.registry, request.realm);
        return Err(Trouble::fatal(Kind::PermissionDenied, words));
    }
    let mut patience = session.patience();
    loop {
        match fetch_token_once(session, request).await {
            Ok(known) => return Ok(known),
            Err(trouble) => patience.pause(trouble, false).await?,
        }
    }
}

async fn fetch_token_once(session: &Session, request: &TokenRequest<'_>) -> Result<Known, Trouble> {
    let mut answer = session.send_plain(token_request(session, request)?).await?;
    if !answer.status.is_success() {
        return Err(refused(session, request, answer).await);
    }
    let line = answer.line();
    let failed = |why: &str| Trouble::fatal(Kind::Unavailable, format!("{line}: {why}"));
    let body =
        answer.read(TOKEN_LIMIT_BYTES).await?.ok_or_else(|| failed("the token is larger than 1 MiB"))?;
    let token = parse_token(&body).ok_or_else(|| failed("the answer holds no token"))?;
    let life = token.expires_in.map_or(TOKEN_LIFE, Duration::from_secs).min(Duration::from_secs(24 * 3600));
    let header = secret(format!("Bearer {}", token.text)).map_err(|_| failed("the token is malformed"))?;
    Ok(Known { header, until: Some(Instant::now() + life.saturating_sub(TOKEN_MARGIN).max(TOKEN_MARGIN)) })
}

fn token_request(session: &Session, request: &TokenRequest<'_>) -> Result<Outgoing, Trouble> {
    let origin = request.realm.origin();
    let is_trusted = rules::is_named(origin, &session.settings.trusted_realms);
    let trust = if is_trusted { Trust::Named } else { session.trust(origin) };
    let mut headers: Vec<(HeaderName, HeaderValue)> =
        vec![(ACCEPT, HeaderValue::from_static("application/json"))];
    headers.extend(HeaderValue::from_str(&session.settings.user_agent).map(|agent| (USER_AGENT, agent)));
    let is_insecure = session.is_insecure(origin);
    if let Some(Credential::Identity(token)) = &request.credential {
        headers.push((CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")));
        let payload = Payload::Bytes(Bytes::from(refresh_form(request, token)));
        return Ok(Outgoing {
            method: Method::POST,
            url: request.realm.clone(),
            headers,
            payload,
            trust,
            is_insecure,
        });
    }
    let mut url = request.realm.clone();
    if let Some(service) = request.service {
        url = url.query("service", service);
    }
    for scope in &request.scopes {
        url = url.query("scope", scope);
    }
    if let Some(Credential::Basic { username, password }) = &request.credential {
        url = url.query("account", username);
        headers.push((AUTHORIZATION, basic(username, password)?));
    }
    Ok(Outgoing { method: Method::GET, url, headers, payload: Payload::Empty, trust, is_insecure })
}

/// Writes the OAuth2 form (distribution spec, "Token Authentication: oauth2").
fn refresh_form(request: &TokenRequest<'_>, refresh_token: &str) -> String {
    let mut form = "grant_type=refresh_token&client_id=bale".to_owned();
    let scopes = request.scopes.join(" ");
    for (name, value) in [
        ("service", request.service.unwrap_or_default()),
        ("scope", &scopes),
        ("refresh_token", refresh_token),
    ] {
        let _ = write!(form, "&{name}=");
        encode(&mut form, value);
    }
    form
}

async fn refused(session: &Session, request: &TokenRequest<'_>, answer: Answer) -> Trouble {
    if answer.status.is_redirection() {
        return Trouble::fatal(
            Kind::Unavailable,
            format!("{}: a token service must not redirect", answer.line()),
        );
    }
    let has_credential = request.credential.is_some();
    let is_about_rights = matches!(answer.status.as_u16(), 400 | 401 | 403);
    let trouble = session.refused(Refusal::of(answer).await);
    if has_credential && is_about_rights {
        let words = format!("the user name or password for {} was not accepted", session.registry);
        return trouble.within(words);
    }
    trouble
}

pub(crate) struct Token {
    pub(crate) text: String,
    expires_in: Option<u64>,
}

/// Reads the token under either name. Not into a shape: a lifetime of another type is no reason to refuse it, and an
/// error about a field would show the token.
pub(crate) fn parse_token(body: &[u8]) -> Option<Token> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let text = field("token").or_else(|| field("access_token"))?.to_owned();
    Some(Token { text, expires_in: value.get("expires_in").and_then(Value::as_u64) })
}

fn basic(username: &str, password: &str) -> Result<HeaderValue, Trouble> {
    secret(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

/// Makes a header value that is never shown in debug output.
fn secret(text: String) -> Result<HeaderValue, Trouble> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| Trouble::fatal(Kind::InvalidInput, "a stored token is malformed"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_two_names() {
        for (body, wanted) in [
            (r#"{"token":"a","access_token":"b","expires_in":300}"#, Some(("a", Some(300)))),
            (r#"{"token":"","access_token":"b"}"#, Some(("b", None))),
            (r#"{"token":"a","expires_in":-1.5}"#, Some(("a", None))),
            (r#"{"access_token":""}"#, None),
            ("[]", None),
            (r#"{"token":7}"#, None),
        ] {
            let token = parse_token(body.as_bytes());
            assert_eq!(token.as_ref().map(|t| (t.text.as_str(), t.expires_in)), wanted, "{body}");
        }
    }

    #[test]
    fn scopes_are_united() {
        let scope = Scope::push("a/b").and_pull("c");
        assert_eq!(scope.with(None), ["repository:a/b:pull,push", "repository:c:pull"]);
        assert_eq!(
            scope.with(Some("repository:c:pull x")),
            ["repository:c:pull", "x", "repository:a/b:pull,push"]
        );
        assert!(Scope::none().with(Some("")).is_empty());
    }

    #[test]
    fn secrets_do_not_show() {
        let header = basic("user", "hunter2").unwrap();
        assert!(!format!("{header:?}").contains("aHVu"));
        assert!(secret("Bearer a\nb".to_owned()).is_err());
    }
}
