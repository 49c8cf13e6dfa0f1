//! Extended attributes: which of them a layer may set.

/// What happens to an attribute of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Set,
    /// Belongs to the host that made the archive; left out without a word, as umoci does.
    Skip,
    /// Left out, with a warning.
    Refuse,
}

/// Decides about attribute `name`. In an overlay directory `user.overlay.*` would be read by the kernel as
/// orders (metacopy, redirect, opaque), and `trusted.*` is nowhere an image's to set.
pub(crate) fn verdict(name: &[u8], is_overlay: bool) -> Verdict {
    match name {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => Verdict::Set,
        b"security.selinux" | b"system.nfs4_acl" => Verdict::Skip,
        _ if name.starts_with(b"user.overlay.") && is_overlay => Verdict::Refuse,
        _ if name.starts_with(b"user.") && name.len() > 5 => Verdict::Set,
        _ => Verdict::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_takes_no_orders() {
        let table: &[(&str, Verdict, Verdict)] = &[
            ("user.x", Verdict::Set, Verdict::Set),
            ("user.overlay.opaque", Verdict::Refuse, Verdict::Set),
            ("trusted.overlay.redirect", Verdict::Refuse, Verdict::Refuse),
            ("trusted.x", Verdict::Refuse, Verdict::Refuse),
            ("security.capability", Verdict::Set, Verdict::Set),
            ("security.selinux", Verdict::Skip, Verdict::Skip),
            ("security.ima", Verdict::Refuse, Verdict::Refuse),
            ("user.", Verdict::Refuse, Verdict::Refuse),
        ];
        for (name, overlay, flat) in table {
            assert_eq!(
                (verdict(name.as_bytes(), true), verdict(name.as_bytes(), false)),
                (*overlay, *flat),
                "{name}"
            );
        }
    }
}
