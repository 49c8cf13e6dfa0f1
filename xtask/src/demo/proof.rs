//! Who answers: the owner of the listening socket, as the kernel tells.

use std::fs;

use crate::run::{Result, fail};

/// Proves that the process `pid` listens on `port`, is the first of its pid namespace, and runs as `uid`.
/// Returns the proof as a sentence.
pub fn of_listener(pid: u32, port: u16, uid: u32) -> Result<String> {
    let inodes = listeners(&fs::read_to_string(format!("/proc/{pid}/net/tcp"))?, port);
    if inodes.is_empty() {
        return fail(format!("nobody listens on port {port} in the network of pid {pid}"));
    }
    let own = sockets_of(pid)?;
    let Some(inode) = inodes.iter().find(|inode| own.contains(inode)) else {
        return fail(format!(
            "port {port} is another process's: none of the sockets {inodes:?} belongs to pid {pid}"
        ));
    };
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let uids = field("Uid:");
    if uids.len() != 4 || uids.iter().any(|id| *id != uid.to_string()) {
        return fail(format!("pid {pid} runs with the uids {uids:?}, not as {uid}"));
    }
    let pids = field("NSpid:");
    if pids.len() < 2 || pids.last().map(String::as_str) != Some("1") {
        return fail(format!("pid {pid} is not the first process of a container: NSpid {pids:?}"));
    }
    Ok(format!(
        "socket:[{inode}] listens on port {port}; it belongs to pid {pid}, pid 1 of its container, uid {uid}"
    ))
}

/// Finds the inodes of the sockets that listen on `port` in the text of `/proc/net/tcp`.
fn listeners(table: &str, port: u16) -> Vec<u64> {
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        let listening = *fields.get(3)? == "0A";
        let here = u16::from_str_radix(local_port, 16).ok()? == port;
        if listening && here { fields.get(9)?.parse().ok() } else { None }
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

/// Lists the inodes of a process's sockets.
fn sockets_of(pid: u32) -> Result<Vec<u64>> {
    let links = fs::read_dir(format!("/proc/{pid}/fd"))?
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    let inode =
        |link: std::path::PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    Ok(links.filter_map(inode).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_a_listener_on_that_port_counts() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100\n\
            1: 0100007F:18EB 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 100\n\
            2: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0 100\n";
        assert_eq!(super::listeners(table, 6379), [4711]);
    }
}
