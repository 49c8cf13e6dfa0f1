//! Manifests and tags.

use bale_fault::Kind;
use bale_spec::digest::{Algorithm, Hasher};
use bale_spec::image::{Descriptor, Document, MANIFEST_LIMIT_BYTES, media_type};
use bale_spec::{Digest, Reference};
use hyper::Method;
use hyper::body::Bytes;
use serde::Deserialize;

use crate::auth::Scope;
use crate::client::Fetched;
use crate::refusal::Refusal;
use crate::session::{Ask, Session};
use crate::trouble::Trouble;
use crate::url::Url;
use crate::wire::{Answer, Payload};

/// What is asked for. Schema 1 is not in here, so that registries convert or refuse.
const KNOWN: [&str; 4] =
    [media_type::INDEX, media_type::MANIFEST, media_type::DOCKER_LIST, media_type::DOCKER_MANIFEST];
/// Media types that say nothing: the document itself is asked.
const VAGUE: [&str; 4] =
    ["application/json", "application/octet-stream", "text/plain", "binary/octet-stream"];
const TAG_PAGE_LIMIT: usize = 1000;
const TAG_LIMIT: usize = 1_000_000;

fn ask(method: Method, url: Url, reference: &Reference) -> Ask {
    Ask::new(method, url, Scope::pull(reference.repository())).header("accept", &KNOWN.join(", "))
}

async fn url(session: &Session, reference: &Reference) -> Result<Url, Trouble> {
    session.url(&format!("/v2/{}/manifests/{}", reference.repository(), reference.manifest_name())).await
}

/// Fetches the manifest or index that `reference` names, and holds it against every digest that is known.
pub(crate) async fn get(session: &Session, reference: &Reference) -> Result<Fetched, Trouble> {
    let mut patience = session.patience();
    loop {
        match get_once(session, reference).await {
            Ok(fetched) => return Ok(fetched),
            Err(trouble) => patience.pause(trouble, session.was_reached()).await?,
        }
    }
}

async fn get_once(session: &Session, reference: &Reference) -> Result<Fetched, Trouble> {
    let mut answer =
        session.expect(ask(Method::GET, url(session, reference).await?, reference), &[200]).await?;
    let line = answer.line();
    let too_long = || {
        Trouble::fatal(
            Kind::Corrupt,
            format!("{line}: the manifest is larger than {MANIFEST_LIMIT_BYTES} bytes"),
        )
    };
    if answer.content_length().is_some_and(|length| length > MANIFEST_LIMIT_BYTES as u64) {
        return Err(too_long());
    }
    let bytes = answer.read(MANIFEST_LIMIT_BYTES).await?.ok_or_else(too_long)?;
    verify(&answer, reference, bytes)
}

fn verify(answer: &Answer, reference: &Reference, bytes: Vec<u8>) -> Result<Fetched, Trouble> {
    let corrupt = |words: String| Trouble::fatal(Kind::Corrupt, format!("{}: {words}", answer.line()));
    let said = digest_header(answer)?;
    let wanted = reference.digest().copied();
    for (digest, who) in [(wanted, "the reference"), (said, "the registry")] {
        if let Some(digest) = digest
            && hash(digest.algorithm(), &bytes) != digest
        {
            let actual = hash(digest.algorithm(), &bytes);
            return Err(corrupt(format!("the manifest is {actual}, but {who} says {digest}")));
        }
    }
    let digest = wanted.or(said).unwrap_or_else(|| Digest::of(&bytes));
    let content_type = content_type(answer);
    let document = Document::parse(&bytes, content_type.as_deref());
    let document = document.map_err(|e| {
        Trouble::from(
            bale_fault::Fault::new(
                Kind::InvalidInput,
                format!("{}: not a manifest that can be used", answer.line()),
            )
            .caused_by(e)
            .hint("what answers there may be no image registry: check the name"),
        )
    })?;
    let media_type = content_type.unwrap_or_else(|| own_media_type(&document));
    Ok(Fetched { bytes, media_type, digest })
}

fn own_media_type(document: &Document) -> String {
    let (own, usual) = match document {
        Document::Manifest(manifest) => (&manifest.media_type, media_type::MANIFEST),
        Document::Index(index) => (&index.media_type, media_type::INDEX),
    };
    own.clone().unwrap_or_else(|| usual.to_owned())
}

fn content_type(answer: &Answer) -> Option<String> {
    let text =
        answer.header("content-type")?.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    (!text.is_empty() && !VAGUE.contains(&text.as_str())).then_some(text)
}

fn digest_header(answer: &Answer) -> Result<Option<Digest>, Trouble> {
    let Some(text) = answer.header("docker-content-digest") else { return Ok(None) };
    let malformed =
        |e| Trouble::fatal(Kind::Corrupt, format!("{}: Docker-Content-Digest: {e}", answer.line()));
    text.trim().parse().map(Some).map_err(malformed)
}

fn hash(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

/// Asks what `reference` points to without fetching it; `None` when the registry does not say enough.
pub(crate) async fn head(session: &Session, reference: &Reference) -> Result<Option<Descriptor>, Trouble> {
    let mut patience = session.patience();
    loop {
        match head_once(session, reference).await {
            Ok(found) => return Ok(found),
            Err(trouble) => patience.pause(trouble, session.was_reached()).await?,
        }
    }
}

async fn head_once(session: &Session, reference: &Reference) -> Result<Option<Descriptor>, Trouble> {
    let answer = session.ask(ask(Method::HEAD, url(session, reference).await?, reference)).await?;
    match answer.status.as_u16() {
        200 => {}
        // Some registries know manifests by GET only.
        405 | 501 => return Ok(None),
        _ => return Err(session.refused(Refusal::of(answer).await)),
    }
    let (digest, content_type, length) =
        (digest_header(&answer)?, content_type(&answer), answer.content_length());
    // The length of a HEAD answer is not that of its body, so it is read from the header.
    let length = answer.header("content-length").and_then(|text| text.parse().ok()).or(length);
    answer.discard().await;
    match (digest, content_type, length) {
        (Some(digest), Some(kind), Some(length)) => Ok(Some(Descriptor::new(&kind, digest, length))),
        _ => Ok(None),
    }
}

/// Stores a manifest or index under the name of `reference`.
pub(crate) async fn put(
    session: &Session,
    reference: &Reference,
    kind: &str,
    bytes: Bytes,
) -> Result<Digest, Trouble> {
    let mut patience = session.patience();
    loop {
        match put_once(session, reference, kind, &bytes).await {
            Ok(digest) => return Ok(digest),
            Err(trouble) => patience.pause(trouble, session.was_reached()).await?,
        }
    }
}

async fn put_once(
    session: &Session,
    reference: &Reference,
    kind: &str,
    bytes: &Bytes,
) -> Result<Digest, Trouble> {
    let algorithm = reference.digest().map_or(Algorithm::Sha256, Digest::algorithm);
    let digest = hash(algorithm, bytes);
    let ask = Ask::new(Method::PUT, url(session, reference).await?, Scope::push(reference.repository()));
    let ask = ask.header("content-type", kind).payload(Payload::Bytes(bytes.clone()));
    let answer = session.expect(ask, &[200, 201, 202]).await?;
    if let Some(said) = digest_header(&answer)?
        && said.algorithm() == algorithm
        && said != digest
    {
        let words = format!("{}: the registry stored {said}, but {digest} was sent", answer.line());
        return Err(Trouble::fatal(Kind::Corrupt, words));
    }
    answer.discard().await;
    Ok(digest)
}

/// Lists the tags of a repository, page by page.
pub(crate) async fn tags(session: &Session, reference: &Reference) -> Result<Vec<String>, Trouble> {
    let mut next = Some(session.url(&format!("/v2/{}/tags/list?n=1000", reference.repository())).await?);
    let mut tags = Vec::new();
    for _ in 0..TAG_PAGE_LIMIT {
        let Some(url) = next.take() else { return Ok(tags) };
        let (page, link) = tag_page(session, reference, url).await?;
        // A page that adds nothing and still names another one would go on forever.
        next = if page.is_empty() { None } else { link };
        tags.extend(page);
        if tags.len() > TAG_LIMIT {
            break;
        }
    }
    let words =
        format!("list tags of {}/{}: the list does not end", reference.registry(), reference.repository());
    if next.is_some() { Err(Trouble::fatal(Kind::Exhausted, words)) } else { Ok(tags) }
}

async fn tag_page(
    session: &Session,
    reference: &Reference,
    url: Url,
) -> Result<(Vec<String>, Option<Url>), Trouble> {
    #[derive(Deserialize)]
    struct Page {
        tags: Option<Vec<String>>,
    }
    let mut patience = session.patience();
    let mut answer = loop {
        let ask = Ask::new(Method::GET, url.clone(), Scope::pull(reference.repository()));
        match session.expect(ask, &[200]).await {
            Ok(answer) => break answer,
            Err(trouble) => patience.pause(trouble, session.was_reached()).await?,
        }
    };
    let failed = |words: &str| Trouble::fatal(Kind::Corrupt, format!("GET {url}: {words}"));
    let link = answer.header("link").and_then(next_link).map(str::to_owned);
    let body = answer.read(MANIFEST_LIMIT_BYTES).await?.ok_or_else(|| failed("the list is too long"))?;
    let page: Page = serde_json::from_slice(&body).map_err(|_| failed("the list of tags is malformed"))?;
    let next = link.map(|link| url.join(&link)).transpose().map_err(|e| failed(e.0))?;
    if next.as_ref().is_some_and(|next| next.origin() != url.origin()) {
        return Err(failed("the next page is on another host"));
    }
    Ok((page.tags.unwrap_or_default(), next))
}

/// Finds the target of `rel="next"` in a `Link` header (RFC 8288).
pub(crate) fn next_link(header: &str) -> Option<&str> {
    header.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = parameters.split(';').any(|p| matches!(p.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        assert_eq!(
            next_link("</v2/x/tags/list?last=a&n=2>; rel=\"next\""),
            Some("/v2/x/tags/list?last=a&n=2")
        );
        assert_eq!(next_link("</a>; rel=prev, </b>; rel=next"), Some("/b"));
        assert_eq!(next_link("</a"), None);
        assert_eq!(next_link(""), None);
    }
}
