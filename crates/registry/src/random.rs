//! Numbers that others cannot guess, from the TLS provider's generator.

/// Returns a random number; `0` should the system have no randomness, where TLS would fail first.
pub(crate) fn number() -> u32 {
    let mut bytes = [0; 4];
    let _ = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}
