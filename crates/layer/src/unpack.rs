//! The pipeline from compressed bytes to a writer.
//!
//! Two threads, for two cores: the source reads, hashes, keeps and inflates; the sink (the caller's thread,
//! so that a writer need not be `Send`) hashes the archive, cuts it and writes. Between them go at most
//! [`BUFFERS`] buffers. Whichever fails first makes the other stop by closing its channel, and only its
//! failure is told.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::Digest;
use bale_spec::digest::{Algorithm, Hasher};
use bale_spec::image::Descriptor;

use crate::codec::{self, Decoder};
use crate::fault::{corrupt, exhausted};
use crate::tar::{Event, Reader};
use crate::{Compression, LayerWriter, Limits, Table};

/// Buffers between the threads. Four let the source run ahead while the sink writes a big file; more is only
/// memory.
const BUFFERS: usize = 4;

/// zlib-rs inflates a third faster into 1 MiB than into 4 KiB; beyond it leaves the second-level cache.
const BUFFER_BYTES: usize = 1 << 20;

const INPUT_BYTES: usize = 256 << 10;

/// How a layer is unpacked.
#[derive(Debug, Default)]
pub struct UnpackOptions {
    /// What the manifest promises of the blob: digest and size are verified, the media type is compared.
    pub expected_blob: Option<Descriptor>,
    /// What the config promises of the uncompressed archive.
    pub expected_diff_id: Option<Digest>,
    /// Where the compressed bytes are kept; written from its current position on.
    pub tee: Option<File>,
    /// Bounds.
    pub limits: Limits,
}

/// What a layer was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the compressed bytes.
    pub blob_digest: Digest,
    /// Count of the compressed bytes.
    pub blob_size: u64,
    /// Digest of the uncompressed archive, whatever stands after its end included.
    pub diff_id: Digest,
    /// Count of the uncompressed bytes.
    pub tar_size: u64,
    /// How the blob is compressed, by its first bytes.
    pub compression: Compression,
    /// The media type promised another compression.
    pub mislabelled: bool,
    /// Entries of the archive.
    pub entries: u64,
    /// What the writer tells.
    pub table: Table,
}

/// Unpacks one layer into `writer`. Success means that everything was verified.
///
/// A failure of `compressed` that wraps a [`Fault`] is given back as that.
///
/// # Errors
/// `Corrupt` for digests, sizes, streams or archives that are not as promised, `Exhausted` above the limits, what
/// `compressed` gave, and the writer's own failures.
pub fn unpack<R: Read + Send>(
    compressed: R,
    options: UnpackOptions,
    writer: &mut dyn LayerWriter,
) -> Result<Unpacked> {
    let UnpackOptions { expected_blob, expected_diff_id, tee, limits } = options;
    let (filled, archive) = sync_channel(BUFFERS);
    let (give_back, empty) = channel();
    let source =
        Source::new(compressed, expected_blob.as_ref(), tee, &limits, Pool { filled, empty, made: 0 });
    let (blob, sink) = thread::scope(|scope| {
        let thread = thread::Builder::new().name("bale-inflate".into()).stack_size(512 << 10);
        let source = thread.spawn_scoped(scope, || source.run()).within(|| "start a thread")?;
        let diff = expected_diff_id.map_or(Algorithm::Sha256, |d| d.algorithm());
        let sink =
            Sink { hasher: Hasher::new(diff), size: 0, reader: Reader::new(limits.clone()), give_back };
        let sink = sink.run(archive, writer);
        let blob = source
            .join()
            .unwrap_or_else(|_| Err(Stop::Failed(Fault::new(Kind::Internal, "a thread panicked"))));
        join(blob, sink)
    })?;
    let diff_id = sink.hasher.finish();
    verify(expected_blob.as_ref(), &blob, expected_diff_id, &diff_id)?;
    sink.reader.finish()?;
    let promised = expected_blob.and_then(|d| d.layer_compression());
    Ok(Unpacked {
        blob_digest: blob.digest,
        blob_size: blob.size,
        diff_id,
        tar_size: sink.size,
        compression: blob.compression,
        mislabelled: promised.is_some_and(|p| p != blob.compression),
        entries: sink.reader.entries(),
        table: writer.finish()?,
    })
}

/// Why a thread stopped early.
enum Stop {
    /// The other one did.
    Peer,
    Failed(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

fn join(blob: Result<Blob, Stop>, sink: Result<Sink, Stop>) -> Result<(Blob, Sink)> {
    match (blob, sink) {
        (Ok(blob), Ok(sink)) => Ok((blob, sink)),
        // What the source found is nearer to the cause: the sink has only seen a short or a wrong archive.
        (Err(Stop::Failed(fault)), _) | (_, Err(Stop::Failed(fault))) => Err(fault),
        (Err(Stop::Peer), _) | (_, Err(Stop::Peer)) => Err(Fault::new(Kind::Internal, "both threads waited")),
    }
}

fn verify(
    descriptor: Option<&Descriptor>,
    blob: &Blob,
    diff_id: Option<Digest>,
    found: &Digest,
) -> Result<()> {
    if let Some(descriptor) = descriptor {
        if blob.size != descriptor.size {
            return Err(corrupt(format!(
                "the layer has {} bytes, {} were promised",
                blob.size, descriptor.size
            )));
        }
        if blob.digest != descriptor.digest {
            return Err(corrupt(format!("the layer is {}, {} was promised", blob.digest, descriptor.digest)));
        }
    }
    match diff_id {
        Some(promised) if promised != *found => {
            Err(corrupt(format!("the uncompressed layer is {found}, {promised} was promised"))
                .hint("the image's config does not belong to its layers"))
        }
        _ => Ok(()),
    }
}

/// What the source knows at its end.
struct Blob {
    digest: Digest,
    size: u64,
    compression: Compression,
}

struct Source<R> {
    input: R,
    hasher: Hasher,
    size: u64,
    /// One byte above it is an error.
    size_limit: u64,
    promised: bool,
    tee: Option<File>,
    limits: Limits,
    pool: Pool,
    produced: u64,
}

impl<R: Read> Source<R> {
    fn new(input: R, blob: Option<&Descriptor>, tee: Option<File>, limits: &Limits, pool: Pool) -> Self {
        Self {
            input,
            hasher: Hasher::new(blob.map_or(Algorithm::Sha256, |d| d.digest.algorithm())),
            size: 0,
            size_limit: blob.map_or(limits.blob_bytes, |d| d.size),
            promised: blob.is_some(),
            tee,
            limits: limits.clone(),
            pool,
            produced: 0,
        }
    }

    fn run(mut self) -> Result<Blob, Stop> {
        let mut buffer = vec![0; INPUT_BYTES];
        let mut held = 0;
        while held < codec::MAGIC_BYTES {
            match self.read(&mut buffer[held..])? {
                0 => break,
                count => held += count,
            }
        }
        let compression = codec::detect(&buffer[..held])?;
        let mut decoder = Decoder::new(compression)?;
        let mut output = self.pool.take().ok_or(Stop::Peer)?;
        let mut filled = 0;
        while held > 0 {
            let mut input = &buffer[..held];
            loop {
                let room = output.len() - filled;
                let count = decoder.decode(&mut input, &mut output[filled..])?;
                self.count(count)?;
                filled += count;
                if count < room {
                    break;
                }
                output = self.pool.exchange(output, filled).ok_or(Stop::Peer)?;
                filled = 0;
            }
            held = self.read(&mut buffer)?;
        }
        decoder.finish()?;
        self.pool.send(output, filled).ok_or(Stop::Peer)?;
        Ok(Blob { digest: self.hasher.finish(), size: self.size, compression })
    }

    /// Reads once, hashes and keeps.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = loop {
            match self.input.read(buffer) {
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(read_fault(error)),
            }
        };
        let bytes = &buffer[..count];
        self.size += count as u64;
        if self.size > self.size_limit {
            let words = format!("the layer is longer than the {} bytes that were promised", self.size_limit);
            let words_limit = format!("the layer is longer than {} bytes", self.size_limit);
            return Err(if self.promised { corrupt(words) } else { exhausted(words_limit) });
        }
        self.hasher.update(bytes);
        if let Some(tee) = &mut self.tee {
            tee.write_all(bytes).within(|| "keep the compressed layer")?;
        }
        Ok(count)
    }

    /// Counts what came out, against bombs.
    fn count(&mut self, count: usize) -> Result<()> {
        self.produced += count as u64;
        let limits = &self.limits;
        if self.produced > limits.tar_bytes {
            return Err(exhausted(format!(
                "the uncompressed layer is larger than {} bytes",
                limits.tar_bytes
            )));
        }
        if self.produced > limits.ratio_from_bytes && self.produced / limits.ratio.max(1) > self.size {
            return Err(exhausted(format!("the layer is compressed more than {} to 1", limits.ratio))
                .hint("this is what a decompression bomb looks like"));
        }
        Ok(())
    }
}

fn read_fault(error: std::io::Error) -> Fault {
    match error.downcast::<Fault>() {
        Ok(fault) => fault,
        Err(error) => Fault::new(bale_fault::kind_of_io(&error), "read the layer").caused_by(error),
    }
}

/// Part of an archive.
struct Piece {
    buffer: Vec<u8>,
    length: usize,
}

/// The source's end of the ring.
struct Pool {
    filled: SyncSender<Piece>,
    empty: Receiver<Vec<u8>>,
    made: usize,
}

impl Pool {
    /// Returns an empty buffer; waits when all are under way. `None` when the sink is gone.
    fn take(&mut self) -> Option<Vec<u8>> {
        match self.empty.try_recv() {
            Ok(buffer) => Some(buffer),
            Err(_) if self.made < BUFFERS => {
                self.made += 1;
                Some(vec![0; BUFFER_BYTES])
            }
            Err(_) => self.empty.recv().ok(),
        }
    }

    fn send(&self, buffer: Vec<u8>, length: usize) -> Option<()> {
        self.filled.send(Piece { buffer, length }).ok()
    }

    fn exchange(&mut self, buffer: Vec<u8>, length: usize) -> Option<Vec<u8>> {
        self.send(buffer, length)?;
        self.take()
    }
}

struct Sink {
    hasher: Hasher,
    size: u64,
    reader: Reader,
    /// Closed with this value: a source that waits for a buffer has to see that the sink is gone.
    give_back: Sender<Vec<u8>>,
}

impl Sink {
    fn run(mut self, archive: Receiver<Piece>, writer: &mut dyn LayerWriter) -> Result<Self, Stop> {
        for piece in archive {
            let mut input = &piece.buffer[..piece.length];
            self.size += input.len() as u64;
            self.hasher.update(input);
            while let Some(event) = self.reader.next(&mut input)? {
                match event {
                    Event::Entry(entry) => writer.entry(*entry)?,
                    Event::Data { offset, bytes } => writer.data(offset, bytes)?,
                }
            }
            // The source may be at its end already.
            let _ = self.give_back.send(piece.buffer);
        }
        Ok(self)
    }
}
