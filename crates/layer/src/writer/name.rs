//! Names of entries: cut, checked, and what `.wh.` means.

use bale_fault::Result;

use crate::fault::{corrupt, show};

/// A checked path: components without empty, `.` and `..` ones.
pub(super) struct Path<'a>(Vec<&'a [u8]>);

/// What the last component of an entry's name asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Role<'a> {
    /// To be written.
    Plain,
    /// `.wh.NAME`: hide NAME of the lower layers.
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`: hide all that the lower layers have in this directory.
    Opaque,
    /// A name that only AUFS understands, or that the way back would misread.
    Reserved,
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl<'a> Path<'a> {
    pub(super) fn parse(path: &'a [u8]) -> Result<Self> {
        let mut components = Vec::with_capacity(12);
        for component in path.split(|&b| b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(corrupt(format!("the path {} has a component \"..\"", show(path)))),
                _ if component.len() > 255 => {
                    return Err(corrupt(format!(
                        "the path {} has a component longer than 255 bytes",
                        show(path)
                    )));
                }
                _ if component.contains(&0) => {
                    return Err(corrupt(format!("the path {} has a NUL byte", show(path))));
                }
                _ => components.push(component),
            }
        }
        Ok(Self(components))
    }

    /// Returns all components.
    pub(super) fn all(&self) -> &[&'a [u8]] {
        &self.0
    }

    /// Splits off the last component; `None` for the root.
    pub(super) fn split_last(&self) -> Option<(&'a [u8], &[&'a [u8]])> {
        self.0.split_last().map(|(last, parents)| (*last, parents))
    }

    pub(super) fn role(&self) -> Result<Role<'a>> {
        let Some((last, parents)) = self.split_last() else { return Ok(Role::Plain) };
        if parents.iter().any(|c| c.starts_with(WHITEOUT)) {
            return Ok(Role::Reserved);
        }
        if last == OPAQUE {
            return Ok(Role::Opaque);
        }
        match last.strip_prefix(WHITEOUT) {
            None => Ok(Role::Plain),
            Some(b"" | b"." | b"..") => Err(corrupt(format!("{} is no whiteout of anything", show(last)))),
            Some(name) if name.starts_with(WHITEOUT) => Ok(Role::Reserved),
            Some(name) => Ok(Role::Whiteout(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_roles() {
        let table: &[(&str, Option<Role<'_>>)] = &[
            ("a/b", Some(Role::Plain)),
            ("./", Some(Role::Plain)),
            ("/a//./.wh.b/", Some(Role::Whiteout(b"b"))),
            ("a/.wh..wh..opq", Some(Role::Opaque)),
            (".wh..wh.plnk", Some(Role::Reserved)),
            ("a/.wh..wh.aufs", Some(Role::Reserved)),
            (".wh.x/y", Some(Role::Reserved)),
            (".wh.a.wh.b", Some(Role::Whiteout(b"a.wh.b"))),
            ("a/.wh.", None),
            (".wh..", None),
            (".wh...", None),
            ("a/../b", None),
            ("..", None),
        ];
        for (path, expected) in table {
            let role = Path::parse(path.as_bytes()).and_then(|p| p.role());
            assert_eq!(role.ok(), *expected, "{path}");
        }
        assert!(Path::parse(&[b'x'; 256]).is_err());
        assert!(Path::parse(&[b'x'; 255]).is_ok());
    }
}
