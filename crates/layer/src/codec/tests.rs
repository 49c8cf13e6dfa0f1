use std::io::Write;

use super::*;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zstd_frame(data: &[u8]) -> Vec<u8> {
    ::zstd::bulk::compress(data, 3).unwrap()
}

/// Decodes in input pieces of `step` bytes and output pieces of 777.
fn decode(stream: &[u8], step: usize) -> Result<Vec<u8>> {
    let mut decoder = Decoder::new(detect(stream)?)?;
    let (mut all, mut output) = (Vec::new(), [0; 777]);
    for mut piece in stream.chunks(step) {
        loop {
            let count = decoder.decode(&mut piece, &mut output)?;
            all.extend_from_slice(&output[..count]);
            if count < output.len() {
                assert!(piece.is_empty());
                break;
            }
        }
    }
    decoder.finish()?;
    Ok(all)
}

fn check(stream: &[u8], expected: Option<&[u8]>) {
    for step in [1, 7, 4096, usize::MAX >> 1] {
        match (decode(stream, step), expected) {
            (Ok(got), Some(want)) => assert_eq!(got, want),
            (Err(fault), None) => assert_eq!(fault.kind(), Kind::Corrupt, "{fault:?}"),
            (got, _) => panic!("step {step}: {got:?}"),
        }
    }
}

#[test]
fn members_and_frames_concatenate_and_junk_is_refused() {
    let text: Vec<u8> = (0..20_000_u32).flat_map(|i| (i % 251).to_le_bytes()).collect();
    for make in [gzip, zstd_frame] {
        let one = make(&text);
        check(&one, Some(&text));
        check(&[make(&text[..5000]), make(b""), make(&text[5000..])].concat(), Some(&text));
        check(&one[..one.len() - 1], None);
        check(&one[..one.len() / 2], None);
        check(&[&one[..], b"junk"].concat(), None);
        let mut flipped = one.clone();
        flipped[one.len() - 5] ^= 1;
        assert!(decode(&flipped, 4096).is_err() || make(b"x").starts_with(&[0x28]));
    }
    check(&[&gzip(&text)[..], &[0; 3000]].concat(), Some(&text));
    check(&[&gzip(&text)[..], &[0; 30], b"x"].concat(), None);
    let skippable = [0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    check(&[&skippable[..], &zstd_frame(&text), &skippable].concat(), Some(&text));
    check(b"plain", Some(b"plain"));
    check(b"", Some(b""));
}

#[test]
fn all_parts_of_a_gzip_header_are_passed_over() {
    let plain = gzip(b"text");
    let mut full = plain[..10].to_vec();
    full[3] = FLAG_ALL;
    full.extend_from_slice(&[2, 0, b'e', b'x']);
    full.extend_from_slice(b"name\0comment\0\x12\x34");
    full.extend_from_slice(&plain[10..]);
    check(&full, Some(b"text"));
    full[3] = 0x40;
    check(&full, None);
}

const FLAG_ALL: u8 = 2 | 4 | 8 | 16;

#[test]
fn other_compressions_are_named() {
    let fault = detect(b"BZh91AY").unwrap_err();
    assert_eq!((fault.kind(), fault.words()), (Kind::Unsupported, "the layer is compressed with bzip2"));
    assert!(detect(&[0xfd, b'7', b'z', b'X', b'Z', 0]).is_err());
}

#[test]
fn a_huge_zstd_window_is_refused() {
    // Magic, a frame header with a window of 2 GiB, and an empty last block.
    check(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00], None);
}
