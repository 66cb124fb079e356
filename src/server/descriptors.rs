//! The process's descriptors: a client that takes the last one would keep a peer from connecting, and the log
//! from its next segment. So clients get what is left over.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits;

/// Makes room for `wanted` connections of clients, as far as the system allows, and returns for how many there
/// is room.
pub(super) fn room_for_clients(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let needed = (wanted + limits::OWN_DESCRIPTORS) as u64;
    let mut allowed = limit.current.unwrap_or(u64::MAX);
    if allowed < needed {
        let raised = limit.maximum.unwrap_or(u64::MAX).min(needed);
        if setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }).is_ok() {
            allowed = raised;
        }
    }
    let room = clients_within(allowed, wanted);
    if room < wanted {
        log::warn!(
            "limits.max_clients = {wanted} needs {needed} descriptors, the system allows {allowed}: {room} \
             clients are taken (`ulimit -n` is the limit)"
        );
    }
    room
}

fn clients_within(allowed: u64, wanted: usize) -> usize {
    let room = usize::try_from(allowed).unwrap_or(usize::MAX).saturating_sub(limits::OWN_DESCRIPTORS);
    // A node that takes no client at all could not even be asked how it is.
    room.clamp(1, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_the_node_itself_does_not_need() {
        let own = limits::OWN_DESCRIPTORS as u64;
        for (allowed, room) in
            [(0, 1), (own, 1), (own + 1, 1), (own + 7, 7), (own + 10, 10), (own + 11, 10), (u64::MAX, 10)]
        {
            assert_eq!(clients_within(allowed, 10), room, "{allowed} descriptors");
        }
    }
}
