//! A backend: says to whom it answers and under which address it was reached.
//!
//! A request is its length, eight bytes with the most significant first, and as many bytes; an answer is [`ANSWER`] bytes of
//! text, `LOCAL PEER` and spaces. UDP answers every datagram alike.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::thread;

use crate::table::{PORT, dns_backends};

/// The length of an answer.
pub(crate) const ANSWER: usize = 64;
const CHUNK: usize = 64 * 1024;

/// Serves until it is killed.
pub(crate) fn run() -> io::Result<()> {
    for backend in dns_backends() {
        let socket = UdpSocket::bind(backend)?;
        thread::spawn(move || answer_datagrams(&socket));
    }
    accept(&TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT))?)
}

/// Answers every connection to a listener, each in a thread of its own.
pub(crate) fn accept(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        // A client that went away is of no interest.
        thread::spawn(move || answer_requests(stream));
    }
}

fn text(local: SocketAddr, peer: SocketAddr) -> String {
    format!("{:ANSWER$}", format!("{local} {peer}"))
}

fn answer_requests(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let answer = text(stream.local_addr()?, stream.peer_addr()?);
    let mut chunk = vec![0; CHUNK];
    loop {
        let mut length = [0; 8];
        stream.read_exact(&mut length)?;
        let mut left = usize::try_from(u64::from_be_bytes(length)).unwrap_or(usize::MAX);
        while left > 0 {
            let part = left.min(CHUNK);
            match stream.read(&mut chunk[..part])? {
                0 => return Ok(()),
                count => left -= count,
            }
        }
        stream.write_all(answer.as_bytes())?;
    }
}

fn answer_datagrams(socket: &UdpSocket) -> io::Result<()> {
    let local = socket.local_addr()?;
    let mut datagram = [0; 512];
    loop {
        let (_, peer) = socket.recv_from(&mut datagram)?;
        // One that cannot be answered is lost, as datagrams are.
        let _ = socket.send_to(text(local, peer).as_bytes(), peer);
    }
}
