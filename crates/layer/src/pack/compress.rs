//! From archive bytes to a compressed blob with both digests.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use bale_fault::{Context, Fault, Kind, Result};
use bale_spec::digest::{Algorithm, Hasher};

use super::{PackOptions, Packed};
use crate::Compression;

const BUFFERS: usize = 4;
const BUFFER_BYTES: usize = 1 << 20;

/// Runs `archive`, which writes an uncompressed archive and returns its entries, beside the compression of
/// it.
pub(super) fn pipeline<W: Write + Send>(
    options: &PackOptions,
    out: W,
    archive: impl FnOnce(&mut dyn Write) -> Result<u64>,
) -> Result<(W, Packed)> {
    let (filled, pieces) = sync_channel(BUFFERS);
    let (give_back, empty) = channel();
    thread::scope(|scope| {
        // It owns its ends of the channels: when it fails, whoever waits at the others has to see it.
        let sink = move || compress(options, out, pieces, &give_back);
        let sink = thread::Builder::new().name("bale-deflate".into()).spawn_scoped(scope, sink);
        let sink = sink.within(|| "start a thread")?;
        let mut pieces = Pieces {
            filled: Some(filled),
            empty,
            buffer: Vec::new(),
            made: 0,
            hasher: new_hasher(),
            size: 0,
        };
        let archived =
            archive(&mut pieces).and_then(|entries| pieces.send().within(|| "compress").map(|()| entries));
        // Closing the channel is what ends the other thread.
        pieces.filled = None;
        let blob = sink.join().unwrap_or_else(|_| Err(Fault::new(Kind::Internal, "a thread panicked")));
        let (diff_id, tar_size) = (pieces.hasher.finish(), pieces.size);
        // When the compression has failed the archive fails too, for no reason of its own.
        let counted = blob?;
        let entries = archived?;
        let (blob_digest, blob_size) = (counted.hasher.finish(), counted.size);
        Ok((counted.out, Packed { blob_digest, blob_size, diff_id, tar_size, entries }))
    })
}

fn new_hasher() -> Hasher {
    Hasher::new(Algorithm::Sha256)
}

/// Takes the archive, hashes it and passes it on.
struct Pieces {
    filled: Option<SyncSender<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
    buffer: Vec<u8>,
    made: usize,
    hasher: Hasher,
    size: u64,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let full = std::mem::take(&mut self.buffer);
        if full.is_empty() {
            return Ok(());
        }
        self.hasher.update(&full);
        self.size += full.len() as u64;
        self.filled.as_ref().and_then(|f| f.send(full).ok()).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    fn renew(&mut self) -> io::Result<()> {
        self.buffer = match self.empty.try_recv() {
            Ok(buffer) => buffer,
            Err(_) if self.made < BUFFERS => {
                self.made += 1;
                Vec::with_capacity(BUFFER_BYTES)
            }
            Err(_) => self.empty.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?,
        };
        self.buffer.clear();
        Ok(())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.capacity() == 0 {
            self.renew()?;
        }
        let count = bytes.len().min(BUFFER_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == BUFFER_BYTES {
            self.send()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Counts and hashes what goes out.
struct Counted<W> {
    out: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn compress<W: Write>(
    options: &PackOptions,
    out: W,
    pieces: Receiver<Vec<u8>>,
    give_back: &Sender<Vec<u8>>,
) -> Result<Counted<W>> {
    let counted = Counted { out, hasher: new_hasher(), size: 0 };
    let mut encoder = Encoder::new(options, counted).within(|| "start the compression")?;
    for piece in pieces {
        encoder.write_all(&piece).within(|| "write the layer")?;
        // The other thread may be at its end already.
        let _ = give_back.send(piece);
    }
    encoder.finish().within(|| "write the layer")
}

enum Encoder<W: Write> {
    None(W),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    fn new(options: &PackOptions, out: W) -> io::Result<Self> {
        Ok(match options.compression {
            Compression::None => Self::None(out),
            Compression::Gzip => {
                // No name and no time in the header: the same tree gives the same bytes.
                let level = flate2::Compression::new(options.level.unwrap_or(6).min(9));
                Self::Gzip(flate2::GzBuilder::new().write(out, level))
            }
            Compression::Zstd => {
                let level = i32::try_from(options.level.unwrap_or(3).min(19)).unwrap_or(3);
                let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
                encoder.include_checksum(true)?;
                Self::Zstd(encoder)
            }
        })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::None(out) => out.write_all(bytes),
            Self::Gzip(out) => out.write_all(bytes),
            Self::Zstd(out) => out.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<W> {
        let mut out = match self {
            Self::None(out) => out,
            Self::Gzip(out) => out.finish()?,
            Self::Zstd(out) => out.finish()?,
        };
        out.flush()?;
        Ok(out)
    }
}
