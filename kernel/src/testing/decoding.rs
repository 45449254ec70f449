//! Reading what a kernel, or anybody on a link, might send, whatever it is: for a fuzzer.

use std::hint::black_box;

use netlink_packet_route::RouteNetlinkMessage;

use crate::netlink::take;
use crate::{devlink, frame, rdma, rtnl, uevent};

/// Reads a datagram as an answer of the routing family, as one of devlink and of the RDMA subsystem, and as a uevent, and looks at everything that
/// this crate ever reads in one.
pub fn read_datagram(datagram: &[u8]) {
    // Every message of an answer repeats its request's number, so the first one's is that of the request.
    let number = datagram.get(8..12).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes);
    let request = || "read a datagram".to_owned();
    let route = &mut |message: RouteNetlinkMessage| rtnl::read_all_of(message);
    let generic = &mut |message| devlink::read_all_of(&message);
    let of_rdma = &mut |message| rdma::read_all_of(&message);
    let refusals = [
        take(datagram, number, &request, &mut 0, route).map(drop),
        take(datagram, number, &request, &mut 0, of_rdma).map(drop),
        take(datagram, number, &request, &mut 0, generic).map(drop),
    ];
    black_box(refusals.map(|outcome| outcome.map_err(|error| error.to_string()).err()));
    black_box(uevent::parse(datagram));
}

/// Reads a frame as one that came in while a link was probed.
pub fn read_frame(frame: &[u8]) {
    black_box((frame::sender(frame), frame::read(frame)));
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn nothing_in_the_corpus_is_too_much() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus");
        for (folder, read) in [("netlink", read_datagram as fn(&[u8])), ("frame", read_frame)] {
            let files = fs::read_dir(format!("{corpus}/{folder}")).unwrap();
            let files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
            assert!(!files.is_empty(), "{folder}");
            files.iter().for_each(|file| read(&fs::read(file).unwrap()));
        }
    }
}
