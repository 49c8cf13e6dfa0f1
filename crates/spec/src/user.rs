//! Who a process is: `user[:group]` looked up in the text of a root file system's passwd and group.
//!
//! A word of digits is a number and never a name (CVE-2016-3697), and a number is a u32 read strictly (CVE-2024-40635,
//! CVE-2026-30892). As docker, uids and gids end at 2147483647.

use bale_fault::{Fault, Kind, Result};

const LARGEST_ID: u32 = i32::MAX as u32;
/// Lines are read up to this many, so that a hostile file costs little.
const LINE_LIMIT: usize = 200_000;

/// A resolved identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups, the primary one first, without doubles.
    pub groups: Vec<u32>,
    /// Home directory: of passwd, else `/`.
    pub home: String,
    /// Name in passwd, when there is an entry.
    pub name: Option<String>,
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Resolves `wanted` (`user`, `uid`, `user:group`, `uid:gid`, `:group` and mixtures; empty is root).
///
/// Without a group it is the one of passwd and the groups that list the user are added; with a group it is that alone.
///
/// # Errors
/// `InvalidInput` with docker's words for a name that is not there, and for a number out of range.
pub fn resolve(wanted: &str, passwd: &str, group: &str) -> Result<Identity> {
    let (user, group_word) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (wanted, None),
    };
    let entry = find_user(user, passwd)?;
    let uid = entry.as_ref().map_or_else(|| number(user), |e| Ok(Some(e.uid)))?.unwrap_or(0);
    let gid = match group_word {
        Some(word) => find_group(word, group)?,
        None => entry.as_ref().map_or(0, |e| e.gid),
    };
    let mut groups = vec![gid];
    if group_word.is_none()
        && let Some(entry) = &entry
    {
        let listed = group_entries(group).filter(|g| g.members.split(',').any(|m| m.trim() == entry.name));
        groups.extend(listed.map(|g| g.gid));
    }
    let home = entry.as_ref().map(|e| e.home).filter(|h| h.starts_with('/')).unwrap_or("/").to_owned();
    Ok(Identity { uid, gid, groups: without_doubles(groups), home, name: entry.map(|e| e.name.to_owned()) })
}

/// Looks up the groups of `--group-add`.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_groups(wanted: &[String], group: &str) -> Result<Vec<u32>> {
    wanted.iter().map(|word| find_group(word, group)).collect()
}

/// Keeps the first of equals.
#[must_use]
pub fn without_doubles(ids: Vec<u32>) -> Vec<u32> {
    let mut seen = std::collections::BTreeSet::new();
    ids.into_iter().filter(|id| seen.insert(*id)).collect()
}

fn find_user<'a>(user: &str, passwd: &'a str) -> Result<Option<Passwd<'a>>> {
    let entries = || passwd_entries(passwd);
    if user.is_empty() {
        return Ok(entries().find(|e| e.uid == 0));
    }
    if let Some(uid) = number(user)? {
        return Ok(entries().find(|e| e.uid == uid));
    }
    match entries().find(|e| e.name == user) {
        Some(entry) => Ok(Some(entry)),
        None => {
            let words = format!("unable to find user {user}: no matching entries in passwd file");
            let near = crate::suggest::closest(user, passwd_entries(passwd).map(|e| e.name).take(1000));
            let hint = near.map_or_else(
                || "name a user of the image, or give a numeric id".to_owned(),
                |n| format!("did you mean {n:?}?"),
            );
            Err(Fault::new(Kind::InvalidInput, words).hint(hint))
        }
    }
}

fn find_group(word: &str, group: &str) -> Result<u32> {
    if let Some(gid) = number(word)? {
        return Ok(gid);
    }
    let found = group_entries(group).find(|g| g.name == word).map(|g| g.gid);
    found.ok_or_else(|| {
        let words = format!("unable to find group {word}: no matching entries in group file");
        Fault::new(Kind::InvalidInput, words).hint("name a group of the image, or give a numeric id")
    })
}

/// Reads a word of digits (or a sign and digits, which is always out of range); `None` when it is a name.
fn number(word: &str) -> Result<Option<u32>> {
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match word.parse::<u32>() {
        Ok(id) if id <= LARGEST_ID && !word.starts_with('+') => Ok(Some(id)),
        _ => Err(Fault::new(
            Kind::InvalidInput,
            format!("user {word:?}: uids and gids must be in range 0-{LARGEST_ID}"),
        )),
    }
}

fn passwd_entries(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().take(LINE_LIMIT).filter_map(|line| {
        let mut fields = line.trim_end_matches('\r').split(':');
        let name = fields.next().filter(|n| !n.is_empty() && !n.starts_with('#'))?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Passwd { name, uid, gid, home })
    })
}

fn group_entries(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().take(LINE_LIMIT).filter_map(|line| {
        let mut fields = line.trim_end_matches('\r').split(':');
        let name = fields.next().filter(|n| !n.is_empty() && !n.starts_with('#'))?;
        let gid = id(fields.nth(1)?)?;
        Some(Group { name, gid, members: fields.next().unwrap_or_default() })
    })
}

/// Reads an id of a file; an entry whose id is malformed is passed over.
fn id(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|id| plain && *id <= LARGEST_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nredis:x:999:998:r:/var/lib/redis:/bin/sh\n\
        1234:x:77:78:num:/num:/bin/sh\ngrp:x:500:500::/home/grp:/bin/sh\n# c\nbad:x:-5:0::/:\nwrap:x:4294967296:0::/:\n";
    const GROUP: &str = "root:x:0:\nredis:x:998:\nextra:x:600:redis,grp\nother:x:601:redis\n55:x:66:\n";

    /// Each answer was seen from docker 28.5 with the same files.
    #[test]
    fn as_docker_resolves() {
        let cases: [(&str, u32, u32, &[u32], &str); 14] = [
            ("", 0, 0, &[0], "/root"),
            ("redis", 999, 998, &[998, 600, 601], "/var/lib/redis"),
            ("999", 999, 998, &[998, 600, 601], "/var/lib/redis"),
            ("999:998", 999, 998, &[998], "/var/lib/redis"),
            ("redis:extra", 999, 600, &[600], "/var/lib/redis"),
            ("0:redis", 0, 998, &[998], "/root"),
            ("1234", 1234, 0, &[0], "/"),
            (":extra", 0, 600, &[600], "/root"),
            ("55", 55, 0, &[0], "/"),
            ("0:55", 0, 55, &[55], "/root"),
            ("redis:600", 999, 600, &[600], "/var/lib/redis"),
            ("grp:", 500, 500, &[500, 600], "/home/grp"),
            (":", 0, 0, &[0], "/root"),
            ("2147483647", 2_147_483_647, 0, &[0], "/"),
        ];
        for (wanted, uid, gid, groups, home) in cases {
            let identity = resolve(wanted, PASSWD, GROUP).unwrap();
            assert_eq!(
                (identity.uid, identity.gid, identity.groups.as_slice(), identity.home.as_str()),
                (uid, gid, groups, home),
                "{wanted:?}"
            );
        }
    }

    #[test]
    fn what_docker_refuses_is_refused_in_its_words() {
        let cases = [
            ("nobody", "unable to find user nobody: no matching entries in passwd file"),
            ("1000:nogrp", "unable to find group nogrp: no matching entries in group file"),
            ("redis:extra:x", "unable to find group extra:x: no matching entries in group file"),
            ("bad", "unable to find user bad: no matching entries in passwd file"),
            ("wrap", "unable to find user wrap: no matching entries in passwd file"),
            ("-1", "user \"-1\": uids and gids must be in range 0-2147483647"),
            ("+1", "user \"+1\": uids and gids must be in range 0-2147483647"),
            ("4294967295", "user \"4294967295\": uids and gids must be in range 0-2147483647"),
            ("4294967296", "user \"4294967296\": uids and gids must be in range 0-2147483647"),
            ("0:2147483648", "user \"2147483648\": uids and gids must be in range 0-2147483647"),
        ];
        for (wanted, words) in cases {
            assert_eq!(resolve(wanted, PASSWD, GROUP).unwrap_err().words(), words);
        }
        assert_eq!(
            resolve("redsi", PASSWD, GROUP).unwrap_err().innermost_hint(),
            Some("did you mean \"redis\"?")
        );
    }

    #[test]
    fn without_files_numbers_still_work() {
        assert_eq!(
            resolve("", "", "").unwrap(),
            Identity { groups: vec![0], home: "/".to_owned(), ..Identity::default() }
        );
        assert_eq!(resolve("7:8", "", "").unwrap().gid, 8);
        assert!(resolve("x", "", "").is_err());
        assert_eq!(resolve_groups(&["5".to_owned(), "extra".to_owned()], GROUP).unwrap(), [5, 600]);
    }
}
