//! One registry: where it is, redirects, and the authorization of each request.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bale_fault::Kind;
use bale_spec::reference::DEFAULT_REGISTRY;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use tokio::sync::OnceCell;

use crate::auth::{Authorizer, Scope};
use crate::patience::Patience;
use crate::refusal::Refusal;
use crate::rules::{Reach, Trust};
use crate::settings::Settings;
use crate::trouble::{Retry, Trouble};
use crate::url::{Origin, Scheme, Url};
use crate::wire::{Answer, Outgoing, Payload, Wire};

/// Docker Hub answers under another name than the one in references.
const HUB: &str = "registry-1.docker.io";
const REDIRECT_LIMIT: usize = 5;

/// The state kept for one registry.
pub(crate) struct Session {
    pub registry: String,
    pub settings: Arc<Settings>,
    wire: Arc<Wire>,
    base: OnceCell<Url>,
    reach: Mutex<Reach>,
    was_reached: AtomicBool,
    pub authorizer: Authorizer,
}

/// A request before authorization and redirects.
pub(crate) struct Ask {
    pub method: Method,
    pub url: Url,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub payload: Payload,
    pub scope: Scope,
}

impl Ask {
    pub(crate) const fn new(method: Method, url: Url, scope: Scope) -> Self {
        Self { method, url, headers: Vec::new(), payload: Payload::Empty, scope }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        // Values are our own words, or have been parsed: one that is no header value is left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    pub(crate) fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }
}

impl Session {
    pub(crate) fn new(
        registry: &str,
        settings: Arc<Settings>,
        wire: Arc<Wire>,
        authorizer: Authorizer,
    ) -> Self {
        Self {
            registry: registry.to_owned(),
            settings,
            wire,
            base: OnceCell::new(),
            reach: Mutex::new(Reach::Public),
            was_reached: AtomicBool::new(false),
            authorizer,
        }
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience::new(self.settings.timeouts)
    }

    pub(crate) fn was_reached(&self) -> bool {
        self.was_reached.load(Ordering::Relaxed)
    }

    /// Returns the URL of `path` (which begins with `/v2/`), finding out the scheme first where it is open.
    pub(crate) async fn url(&self, path: &str) -> Result<Url, Trouble> {
        let base = self.base.get_or_try_init(|| self.find_base()).await?;
        base.join(path).map_err(|e| Trouble::fatal(Kind::InvalidInput, format!("{base} {path}: {e}")))
    }

    /// Sends `ask`, follows redirects, and authorizes itself once when the registry wants that.
    ///
    /// # Errors
    /// Trouble on the way, or a refusal of authorization; other refusals are returned as answers.
    pub(crate) async fn ask(&self, mut ask: Ask) -> Result<Answer, Trouble> {
        let known = self.authorizer.known(&ask.scope).await;
        let answer = self.follow(&mut ask, known.clone()).await?;
        let is_own = self.base.get().is_some_and(|base| base.origin() == answer.url.origin());
        if answer.status != StatusCode::UNAUTHORIZED || !is_own || ask.payload.again().is_none() {
            return Ok(answer);
        }
        let challenges = crate::challenge::parse(
            answer.headers.get_all("www-authenticate").iter().filter_map(|v| v.to_str().ok()),
        );
        let refusal = Refusal::of(answer).await;
        match self.authorizer.authorize(self, &challenges, &ask.scope, known.as_ref()).await? {
            Some(authorization) => {
                let answer = self.follow(&mut ask, Some(authorization.clone())).await?;
                self.judge(answer, &authorization).await
            }
            None => Err(self.refused(refusal)),
        }
    }

    /// Says of a second 401 that it was the name or password, when those were sent.
    async fn judge(&self, answer: Answer, authorization: &HeaderValue) -> Result<Answer, Trouble> {
        if answer.status != StatusCode::UNAUTHORIZED || !authorization.as_bytes().starts_with(b"Basic ") {
            return Ok(answer);
        }
        let trouble = self.refused(Refusal::of(answer).await);
        Err(trouble.within(format!("the user name or password for {} was not accepted", self.registry)))
    }

    /// Sends `ask` and insists on one of `wanted`.
    ///
    /// # Errors
    /// As [`Session::ask`], and every other status.
    pub(crate) async fn expect(&self, ask: Ask, wanted: &[u16]) -> Result<Answer, Trouble> {
        let answer = self.ask(ask).await?;
        if wanted.contains(&answer.status.as_u16()) {
            Ok(answer)
        } else {
            Err(self.refused(Refusal::of(answer).await))
        }
    }

    /// Puts a refusal into words, with what is known about credentials that were held back.
    pub(crate) fn refused(&self, refusal: Refusal) -> Trouble {
        let is_about_rights = matches!(refusal.status.as_u16(), 401 | 403);
        let trouble = refusal.into_trouble(&self.registry);
        match self.authorizer.held_back() {
            Some(why) if is_about_rights => trouble.hint(why),
            _ => trouble,
        }
    }

    /// Sends one request without authorization of the registry, such as to a token service. No redirects.
    pub(crate) async fn send_plain(&self, outgoing: Outgoing) -> Result<Answer, Trouble> {
        self.wire.send(outgoing).await
    }

    /// Tells how a connection to `origin` is to be treated.
    pub(crate) fn trust(&self, origin: &Origin) -> Trust {
        let is_own = self.base.get().is_some_and(|base| base.origin() == origin);
        let reach = self.reach.lock().map_or(Reach::Public, |reach| *reach);
        if is_own { Trust::Named } else { Trust::Served(reach) }
    }

    pub(crate) fn is_insecure(&self, origin: &Origin) -> bool {
        let named = |entry: &String| {
            entry.eq_ignore_ascii_case(&origin.authority())
                || entry.eq_ignore_ascii_case(&origin.host_and_port())
                || entry.eq_ignore_ascii_case(&origin.host)
        };
        self.settings.insecure.iter().any(named)
    }

    async fn follow(&self, ask: &mut Ask, authorization: Option<HeaderValue>) -> Result<Answer, Trouble> {
        let mut url = ask.url.clone();
        let mut authorization =
            authorization.filter(|_| self.base.get().is_some_and(|base| base.origin() == url.origin()));
        for _ in 0..=REDIRECT_LIMIT {
            let answer = self.hop(ask, &url, authorization.as_ref()).await?;
            let Some(location) = redirect(&answer) else { return Ok(answer) };
            let next = self.next_hop(ask, &answer, &url, &location)?;
            if next.origin() != url.origin() {
                // Once outside, never again: a second redirect could lead the credential anywhere.
                authorization = None;
            }
            url = next;
            answer.discard().await;
        }
        Err(Trouble::fatal(
            Kind::Unavailable,
            format!("{} {}: more than {REDIRECT_LIMIT} redirects", ask.method, ask.url),
        ))
    }

    async fn hop(
        &self,
        ask: &mut Ask,
        url: &Url,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Trouble> {
        let mut headers = ask.headers.clone();
        if let Ok(agent) = HeaderValue::from_str(&self.settings.user_agent) {
            headers.push((hyper::header::USER_AGENT, agent));
        }
        headers.extend(authorization.map(|value| (AUTHORIZATION, value.clone())));
        let payload = match ask.payload.again() {
            Some(payload) => payload,
            None => std::mem::replace(&mut ask.payload, Payload::Empty),
        };
        let (trust, is_insecure) = (self.trust(url.origin()), self.is_insecure(url.origin()));
        let outgoing =
            Outgoing { method: ask.method.clone(), url: url.clone(), headers, payload, trust, is_insecure };
        let answer = self.wire.send(outgoing).await?;
        if trust == Trust::Named {
            self.note_reached(answer.reach);
        }
        Ok(answer)
    }

    fn note_reached(&self, reach: Reach) {
        self.was_reached.store(true, Ordering::Relaxed);
        if let Ok(mut known) = self.reach.lock() {
            *known = reach;
        }
    }

    fn next_hop(&self, ask: &Ask, answer: &Answer, url: &Url, location: &str) -> Result<Url, Trouble> {
        let refuse = |why: &str| {
            Err(Trouble::fatal(Kind::PermissionDenied, format!("{}: redirect refused: {why}", answer.line())))
        };
        let next = match url.join(location) {
            Ok(next) => next,
            Err(error) => return refuse(error.0),
        };
        if url.origin().scheme == Scheme::Https && next.origin().scheme == Scheme::Http {
            return refuse("it leads from https to http");
        }
        let is_read = matches!(ask.method, Method::GET | Method::HEAD);
        let keeps_method = matches!(answer.status.as_u16(), 307 | 308);
        if !is_read && (!keeps_method || ask.payload.again().is_none()) {
            return refuse("an upload cannot be sent twice");
        }
        Ok(next)
    }

    /// Returns the URL of `path` for the words of a failure, after something was asked there.
    pub(crate) fn shown_url(&self, path: &str) -> String {
        let url = self.base.get().and_then(|base| base.join(path).ok());
        url.map_or_else(|| format!("{}{path}", self.registry), |url| url.to_string())
    }

    /// Decides between https and http. Only a loopback or insecure registry has the choice; loopback is asked in http
    /// first, since a test registry has no certificate, and others in https first.
    async fn find_base(&self) -> Result<Url, Trouble> {
        let authority = if self.registry == DEFAULT_REGISTRY { HUB } else { &self.registry };
        let at = |scheme| {
            Url::at(scheme, authority, "/v2/")
                .map_err(|e| Trouble::fatal(Kind::InvalidInput, format!("registry {:?}: {e}", self.registry)))
        };
        let https = at(Scheme::Https)?;
        let is_loopback = https.origin().is_loopback();
        if !is_loopback && !self.is_insecure(https.origin()) {
            return Ok(https);
        }
        let http = at(Scheme::Http)?;
        let (first, second) = if is_loopback { (http, https) } else { (https, http) };
        // Without a port in the name, the two are different ports.
        let has_two_ports = first.origin().port != second.origin().port;
        match self.answers(&first).await {
            Ok(true) => Ok(first),
            Ok(false) => Ok(second),
            Err(trouble) => {
                let may_speak_other = matches!(trouble.retry, Retry::OtherProtocol | Retry::Soon);
                if is_loopback && !has_two_ports && !may_speak_other {
                    return Err(trouble);
                }
                match self.answers(&second).await {
                    Ok(_) => Ok(second),
                    // Whoever speaks the other protocol has told more about what is wrong.
                    Err(other) if trouble.retry == Retry::OtherProtocol => Err(other),
                    Err(_) => Err(trouble),
                }
            }
        }
    }

    /// Tells whether a registry answers at `url`; `false` when it asks for https in words, as Go's servers do.
    async fn answers(&self, url: &Url) -> Result<bool, Trouble> {
        let is_insecure = self.is_insecure(url.origin());
        let agent =
            HeaderValue::from_str(&self.settings.user_agent).map(|agent| (hyper::header::USER_AGENT, agent));
        let outgoing = Outgoing {
            method: Method::GET,
            url: url.clone(),
            headers: agent.into_iter().collect(),
            payload: Payload::Empty,
            trust: Trust::Named,
            is_insecure,
        };
        let mut answer = self.wire.send(outgoing).await?;
        self.note_reached(answer.reach);
        let body = answer.read(4 << 10).await.ok().flatten().unwrap_or_default();
        let wants_tls =
            answer.status == StatusCode::BAD_REQUEST && String::from_utf8_lossy(&body).contains("HTTPS");
        Ok(!(url.origin().scheme == Scheme::Http && wants_tls))
    }
}

fn redirect(answer: &Answer) -> Option<String> {
    let is_redirect = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
    answer.header("location").filter(|_| is_redirect).map(str::to_owned)
}

/// The sessions of a client, by registry.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, Arc<Session>>>);

impl Sessions {
    pub(crate) fn get(&self, registry: &str, make: impl FnOnce() -> Session) -> Arc<Session> {
        let mut sessions = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sessions.entry(registry.to_owned()).or_insert_with(|| Arc::new(make())).clone()
    }
}
