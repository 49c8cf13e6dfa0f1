//! zstd: frames one after the other, skippable ones among them; no dictionaries.

use bale_fault::{Context, Result};
use zstd::stream::raw;
use zstd::zstd_safe::DParameter;

use crate::fault::corrupt;

/// The largest window, as a power of two: 128 MiB is what `zstd --long` needs; more is an attack on memory.
const WINDOW_LOG_MAX: u32 = 27;

pub(crate) struct Zstd {
    decoder: raw::Decoder<'static>,
    inside_frame: bool,
    any_frame: bool,
}

impl Zstd {
    pub(crate) fn new() -> Result<Self> {
        let mut decoder = raw::Decoder::new().within(|| "start zstd")?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).within(|| "limit the zstd window")?;
        Ok(Self { decoder, inside_frame: false, any_frame: false })
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.any_frame && !self.inside_frame
    }

    pub(crate) fn decode(&mut self, input: &mut &[u8], output: &mut [u8]) -> Result<usize> {
        let mut produced = 0;
        while produced < output.len() {
            if input.is_empty() && !self.inside_frame {
                break;
            }
            let status = raw::Operation::run_on_buffers(&mut self.decoder, input, &mut output[produced..])
                .map_err(|error| corrupt(format!("the zstd stream is damaged ({})", words(&error))))?;
            *input = &input[status.bytes_read..];
            produced += status.bytes_written;
            self.any_frame = true;
            self.inside_frame = status.remaining != 0;
            if status.bytes_read == 0 && status.bytes_written == 0 {
                break;
            }
        }
        Ok(produced)
    }
}

fn words(error: &std::io::Error) -> String {
    error.to_string().to_lowercase()
}
