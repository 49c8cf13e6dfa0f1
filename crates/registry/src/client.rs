//! The client's face.

use std::future::Future;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, mpsc};

use bale_fault::{Fault, Kind, Result};
use bale_spec::image::Descriptor;
use bale_spec::{Digest, Reference};
use hyper::Method;
use hyper::body::Bytes;

use crate::auth::{Authorizer, Scope, Source};
use crate::blob::{self, Blob, Transfer};
use crate::dial::Dialer;
use crate::dns::Resolver;
use crate::push::{self, Pushed};
use crate::runtime::Runtime;
use crate::session::{Ask, Session, Sessions};
use crate::tls::Tls;
use crate::trouble::Trouble;
use crate::wire::Wire;
use crate::{Credential, Settings, manifest};

/// What to do about content that does not have its digest.
pub const DAMAGED: &str =
    "try again; if it stays so, the registry's copy or a proxy in between is damaged: ask whoever runs it";

/// A manifest or index as the registry sent it; `bytes` hash to `digest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The document, byte for byte.
    pub bytes: Vec<u8>,
    /// Its media type (Content-Type, held against the document's own `mediaType`).
    pub media_type: String,
    /// The digest that was computed over `bytes`.
    pub digest: Digest,
}

/// A registry client. Clones share connections, tokens and the thread behind them.
///
/// All calls block, and may be made from several threads at once. Code that is asynchronous itself calls them from a
/// thread of its own.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

pub(crate) struct Inner {
    settings: Arc<Settings>,
    wire: Arc<Wire>,
    sessions: Sessions,
    /// Last: what runs on it uses the fields above.
    runtime: OnceLock<Runtime>,
}

impl Client {
    /// Makes a client. Nothing is read, resolved or started before the first call that needs it.
    ///
    /// # Errors
    /// None so far; settings that cannot be used will be told here.
    pub fn new(settings: Settings) -> Result<Self> {
        let settings = Arc::new(settings);
        let tls =
            Tls::new(settings.ca_bundles.clone(), settings.ca_files.clone(), settings.certs_dirs.clone());
        let dialer = Dialer {
            resolver: Resolver::new(PathBuf::from("/etc/hosts"), PathBuf::from("/etc/resolv.conf")),
            tls,
            proxies: settings.proxies.clone(),
            patience: settings.timeouts.connect,
        };
        let wire = Arc::new(Wire::new(dialer, settings.timeouts.stall));
        Ok(Self(Arc::new(Inner { settings, wire, sessions: Sessions::default(), runtime: OnceLock::new() })))
    }

    /// Fetches what a reference names: a manifest or an index, its digest verified. From here on only the digest
    /// should be used: a tag can move between two requests.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied` (with the hint to log in), `Unavailable`, `Corrupt` when a digest does not
    /// match, `InvalidInput` for a document that is no usable manifest.
    pub fn resolve(&self, reference: &Reference) -> Result<Fetched> {
        let (session, reference) = (self.0.session(reference.registry()), reference.clone());
        self.0.wait(async move { manifest::get(&session, &reference).await })
    }

    /// Fetches a manifest by the digest in `reference`.
    ///
    /// # Errors
    /// As [`Client::resolve`]; `InvalidInput` when the reference has no digest.
    pub fn manifest(&self, reference: &Reference) -> Result<Fetched> {
        if reference.digest().is_none() {
            return Err(Fault::new(Kind::InvalidInput, format!("{reference} has no digest")));
        }
        self.resolve(reference)
    }

    /// Asks what a reference points to now; `None` when the registry does not say (then [`Client::resolve`] does).
    ///
    /// # Errors
    /// As [`Client::resolve`].
    pub fn head(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let (session, reference) = (self.0.session(reference.registry()), reference.clone());
        self.0.wait(async move { manifest::head(&session, &reference).await })
    }

    /// Lists the tags of the repository of `reference`.
    ///
    /// # Errors
    /// As [`Client::resolve`]; `Exhausted` when the list does not end.
    pub fn tags(&self, reference: &Reference) -> Result<Vec<String>> {
        let (session, reference) = (self.0.session(reference.registry()), reference.clone());
        self.0.wait(async move { manifest::tags(&session, &reference).await })
    }

    /// Fetches a blob from byte `offset` on. The bytes are as many as the descriptor says, and are not hashed.
    ///
    /// # Errors
    /// `NotFound` and the like before the first byte; what happens later comes out of the reader, after retries.
    pub fn blob(&self, reference: &Reference, descriptor: &Descriptor, offset: u64) -> Result<Blob> {
        let (blob, sink) = blob::reader(self.0.clone(), descriptor.size.saturating_sub(offset));
        if offset >= descriptor.size {
            return Ok(blob);
        }
        let session = self.0.session(reference.registry());
        let mut transfer =
            Transfer::new(session, reference.repository(), descriptor.digest, descriptor.size, offset);
        let (transfer, answer) =
            self.0.wait(async move { transfer.open().await.map(|answer| (transfer, answer)) })?;
        self.0.runtime()?.spawn(transfer.pump(Some(answer), sink));
        Ok(blob)
    }

    /// Fetches a small blob, such as an image's config, and verifies its digest.
    ///
    /// # Errors
    /// As [`Client::blob`]; `Exhausted` above `limit_bytes`; `Corrupt` when the digest does not match.
    pub fn blob_bytes(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        limit_bytes: usize,
    ) -> Result<Vec<u8>> {
        let words = || format!("GET {}", self.blob_url(reference, &descriptor.digest));
        if descriptor.size > limit_bytes as u64 {
            let size = descriptor.size;
            return Err(Fault::new(
                Kind::Exhausted,
                format!("{}: {size} bytes are more than {limit_bytes}", words()),
            ));
        }
        let mut bytes = Vec::new();
        let read = self.blob(reference, descriptor, 0)?.read_to_end(&mut bytes);
        read.map_err(blob::fault_of)?;
        let mut hasher = bale_spec::digest::Hasher::new(descriptor.digest.algorithm());
        hasher.update(&bytes);
        let actual = hasher.finish();
        if actual != descriptor.digest {
            let fault = Fault::new(Kind::Corrupt, format!("{}: the content is {actual}", words()));
            return Err(fault.hint(DAMAGED));
        }
        Ok(bytes)
    }

    /// Returns the URL of a blob, for the words of a failure.
    #[must_use]
    pub fn blob_url(&self, reference: &Reference, digest: &Digest) -> String {
        let path = format!("/v2/{}/blobs/{digest}", reference.repository());
        self.0.session(reference.registry()).shown_url(&path)
    }

    /// Tells whether the repository of `reference` has a blob.
    ///
    /// # Errors
    /// As [`Client::resolve`], but for `NotFound`.
    pub fn blob_exists(&self, reference: &Reference, digest: &Digest) -> Result<bool> {
        let (session, repository, digest) =
            (self.0.session(reference.registry()), reference.repository().to_owned(), *digest);
        self.0
            .wait(async move { push::exists(&session, &repository, &digest, Scope::pull(&repository)).await })
    }

    /// Brings a blob into the repository of `reference`, by what costs least: it is there, the registry mounts it from
    /// the repository `mount_from` of its own, or it is uploaded. `open` is called again for each attempt.
    ///
    /// # Errors
    /// As [`Client::resolve`]; `Corrupt` when `open` gives another length than the descriptor; what `open` fails with.
    pub fn push_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        open: &dyn Fn() -> Result<Box<dyn Read + Send>>,
        mount_from: Option<&str>,
    ) -> Result<Pushed> {
        push::push(&self.0, reference, descriptor, open, mount_from)
    }

    /// Stores a manifest or index under the tag or digest of `reference`; its blobs must be there.
    ///
    /// # Errors
    /// As [`Client::resolve`].
    pub fn push_manifest(&self, reference: &Reference, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        let (session, reference) = (self.0.session(reference.registry()), reference.clone());
        let (media_type, bytes) = (media_type.to_owned(), Bytes::copy_from_slice(bytes));
        self.0.wait(async move { manifest::put(&session, &reference, &media_type, bytes).await })
    }

    /// Checks a credential with the registry; nothing is stored.
    ///
    /// # Errors
    /// `PermissionDenied` when it is not accepted, or would have to be sent to a foreign token service.
    pub fn login(&self, registry: &str, credential: &Credential) -> Result<()> {
        let session = self.0.new_session(registry, Source::Given(credential.clone()));
        self.0.wait(async move {
            let ask = Ask::new(Method::GET, session.url("/v2/").await?, Scope::none());
            session.expect(ask, &[200]).await?.discard().await;
            Ok(())
        })
    }
}

impl Inner {
    pub(crate) fn session(&self, registry: &str) -> Arc<Session> {
        self.sessions
            .get(registry, || self.new_session(registry, Source::Store(self.settings.credentials.clone())))
    }

    fn new_session(&self, registry: &str, source: Source) -> Session {
        Session::new(registry, self.settings.clone(), self.wire.clone(), Authorizer::new(source))
    }

    fn runtime(&self) -> Result<&Runtime> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let runtime = Runtime::start()?;
        Ok(self.runtime.get_or_init(|| runtime))
    }

    /// Runs `future` on the thread and waits for it.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, Trouble>> + Send + 'static,
    ) -> Result<T> {
        self.run(future).map_err(Fault::from)
    }

    /// As `wait`, with the decision about a retry.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, Trouble>> + Send + 'static,
    ) -> Result<T, Trouble> {
        self.runtime()?.wait(future)?
    }

    /// Starts `future` on the thread; what it returns can be received.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<mpsc::Receiver<T>> {
        let (done, outcome) = mpsc::sync_channel(1);
        self.runtime()?.spawn(async move {
            let _ = done.send(future.await);
        });
        Ok(outcome)
    }
}
