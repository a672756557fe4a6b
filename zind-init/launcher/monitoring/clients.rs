//! Who is connected to a monitor: requests, and output to those who are attached.

use crate::monitor::{MOST_BYTES, MOST_CLIENTS, Reply};
use crate::planfile::bytes_of;
use crate::sys::{self, EAGAIN, EINTR, PollFd};

/// What one connection is for.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    /// It has not said.
    New,
    /// It gets the output.
    Attached,
    /// It is told of the end.
    Awaits,
}

#[derive(Clone, Copy)]
struct Client {
    fd: i32,
    role: Role,
    /// It has not got the chunk yet.
    is_behind: bool,
}

/// A piece of output on its way: the stream, then its bytes.
pub struct Chunk {
    bytes: [u8; 1 + MOST_BYTES],
    len: usize,
}

impl Chunk {
    pub const EMPTY: Chunk = Chunk { bytes: [0; 1 + MOST_BYTES], len: 0 };

    /// Takes what there is to read; false at the end of the stream. Nothing else may be on its way.
    pub fn fill(&mut self, fd: i32, stream: u8) -> bool {
        match sys::read(fd, &mut self.bytes[1..]) {
            Ok(len) if len > 0 => {
                self.bytes[0] = stream;
                self.len = len;
                true
            }
            Err(EAGAIN) => true,
            // A terminal that nobody has open is an error of its own.
            _ => false,
        }
    }

    pub fn output(&self) -> (u8, &[u8]) {
        (self.bytes[0], self.bytes.get(1..1 + self.len).unwrap_or(&[]))
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Room for something else while nothing is on its way.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

pub struct Clients([Client; MOST_CLIENTS]);

impl Clients {
    pub const NONE: Clients = Clients([Client { fd: -1, role: Role::New, is_behind: false }; MOST_CLIENTS]);

    /// Takes in who wants to connect. Whoever there is no room for finds it closed. False: no descriptor is left.
    pub fn accept(&mut self, listener: i32) -> bool {
        const EMFILE: i32 = 24;
        const ENFILE: i32 = 23;
        let fd = match sys::accept(listener) {
            Ok(fd) => fd,
            Err(errno) => return errno != EMFILE && errno != ENFILE,
        };
        match self.0.iter_mut().find(|client| client.fd < 0) {
            Some(free) => *free = Client { fd, role: Role::New, is_behind: false },
            None => sys::close(fd),
        }
        true
    }

    /// Who is to be polled for what; how many places have somebody in them, or have one behind them that has.
    pub fn poll(&self, fds: &mut [PollFd]) -> usize {
        const POLLOUT: i16 = 4;
        for (slot, client) in fds.iter_mut().zip(&self.0) {
            *slot = PollFd::readable(client.fd);
            if client.is_behind {
                slot.events |= POLLOUT;
            }
        }
        self.0.iter().rposition(|client| client.fd >= 0).map_or(0, |last| last + 1)
    }

    /// The next request of one of them, if it has sent one. Who has hung up is forgotten.
    pub fn request(&mut self, index: usize) -> Option<[u8; 2]> {
        let client = self.0.get_mut(index)?;
        let mut message = [0u8; 2];
        match sys::receive_now(client.fd, &mut message) {
            Ok(0) => {}
            Ok(_) => return Some(message),
            Err(EAGAIN | EINTR) => return None,
            Err(_) => {}
        }
        self.drop(index);
        None
    }

    pub fn reply(&mut self, index: usize, reply: Reply, fd: i32) {
        if self.0.get(index).is_some_and(|client| sys::send_now(client.fd, bytes_of(&reply), fd).is_err()) {
            self.drop(index);
        }
    }

    pub fn attach(&mut self, index: usize) {
        self.0.iter_mut().skip(index).take(1).for_each(|client| client.role = Role::Attached);
    }

    pub fn await_end(&mut self, index: usize) {
        self.0.iter_mut().skip(index).take(1).for_each(|client| client.role = Role::Awaits);
    }

    fn drop(&mut self, index: usize) {
        if let Some(client) = self.0.get_mut(index) {
            sys::close(client.fd);
            *client = Client { fd: -1, role: Role::New, is_behind: false };
        }
    }

    /// The chunk is for everybody who is attached.
    pub fn pass_on(&mut self, chunk: &mut Chunk) {
        self.0.iter_mut().for_each(|client| client.is_behind = client.role == Role::Attached);
        self.go_on(chunk);
    }

    /// Sends it to whoever can take it. When all have it there is room for the next. True if somebody got it.
    pub fn go_on(&mut self, chunk: &mut Chunk) -> bool {
        let mut moved = false;
        for index in 0..MOST_CLIENTS {
            let client = self.0[index];
            if !client.is_behind {
                continue;
            }
            match sys::send_now(client.fd, chunk.bytes.get(..1 + chunk.len).unwrap_or(&[]), -1) {
                Ok(_) => {
                    self.0[index].is_behind = false;
                    moved = true;
                }
                Err(EAGAIN | EINTR) => {}
                Err(_) => self.drop(index),
            }
        }
        if !self.0.iter().any(|client| client.is_behind) {
            chunk.len = 0;
        }
        moved
    }

    /// Those who have not taken the chunk for long are dropped.
    pub fn drop_the_slow(&mut self, chunk: &mut Chunk) {
        for index in 0..MOST_CLIENTS {
            if self.0[index].is_behind {
                self.drop(index);
            }
        }
        chunk.len = 0;
    }

    /// Tells those who wait that it has ended.
    pub fn tell_the_end(&mut self, value: i32) {
        for index in 0..MOST_CLIENTS {
            if self.0[index].role == Role::Awaits {
                self.reply(index, Reply { errno: 0, value }, -1);
            }
        }
    }
}
