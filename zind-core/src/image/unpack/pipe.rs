//! Bytes from thread to thread, in buffers that are used again.
#![forbid(unsafe_code)]

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Bytes of one buffer.
const SIZE: usize = 256 << 10;
/// Buffers that may wait between two threads.
const WAITING: usize = 8;

/// The other side is gone: it has failed, and its error says more.
#[derive(Debug)]
pub(crate) struct Gone;

/// A buffer on its way. When the last one who reads it is done, it goes back to be filled again.
struct Shared {
    bytes: Vec<u8>,
    back: SyncSender<Vec<u8>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // Full or without a reader: one buffer more or less does not matter.
        let (Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) = self.back.try_send(bytes);
    }
}

enum Message {
    Bytes(Arc<Shared>),
    /// Everything came. A channel that ends without it was cut off.
    End,
}

/// The writing side, for one or more readers.
pub(crate) struct Sender {
    readers: Vec<SyncSender<Message>>,
    back: SyncSender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
    filling: Vec<u8>,
}

/// A reading side.
pub(crate) struct Chunks {
    from: Receiver<Message>,
    now: Option<Arc<Shared>>,
    at: usize,
    is_over: bool,
}

/// A sender and so many readers, each of which gets all bytes.
pub(crate) fn channel<const READERS: usize>() -> (Sender, [Chunks; READERS]) {
    let (back, free) = sync_channel(WAITING * 2);
    let mut readers = Vec::new();
    let chunks = std::array::from_fn(|_| {
        let (to, from) = sync_channel(WAITING);
        readers.push(to);
        Chunks { from, now: None, at: 0, is_over: false }
    });
    (Sender { readers, back, free, filling: Vec::new() }, chunks)
}

impl Sender {
    /// Fills a buffer by `read` and sends it on; 0 at the end of what is read.
    pub(crate) fn send_from(&mut self, from: &mut impl Read) -> io::Result<Result<usize, Gone>> {
        let mut bytes = self.buffer();
        bytes.resize(SIZE, 0);
        let mut filled = 0;
        while filled < SIZE {
            match from.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(if filled == 0 { Ok(0) } else { self.send(bytes).map(|()| filled) })
    }

    /// Sends bytes on, sooner or later.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Gone> {
        while !bytes.is_empty() {
            if self.filling.capacity() == 0 {
                self.filling = self.buffer();
                self.filling.clear();
                self.filling.reserve_exact(SIZE);
            }
            let count = bytes.len().min(SIZE - self.filling.len());
            self.filling.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.filling.len() == SIZE {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Gone> {
        match std::mem::take(&mut self.filling) {
            bytes if bytes.is_empty() => Ok(()),
            bytes => self.send(bytes),
        }
    }

    /// Everything was sent. Without this the readers see that they were cut off.
    pub(crate) fn finish(mut self) -> Result<(), Gone> {
        self.flush()?;
        self.readers.iter().try_for_each(|reader| reader.send(Message::End).map_err(|_| Gone))
    }

    fn buffer(&mut self) -> Vec<u8> {
        self.free.try_recv().unwrap_or_else(|_| Vec::with_capacity(SIZE))
    }

    fn send(&mut self, bytes: Vec<u8>) -> Result<(), Gone> {
        let shared = Arc::new(Shared { bytes, back: self.back.clone() });
        for reader in &self.readers {
            reader.send(Message::Bytes(shared.clone())).map_err(|_| Gone)?;
        }
        Ok(())
    }
}

/// What a reader gets when the sender went away without [`Sender::finish`].
pub(crate) fn is_cut_off(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionAborted
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while !self.is_over && self.now.as_ref().is_none_or(|now| self.at == now.bytes.len()) {
            self.now = None;
            self.at = 0;
            match self.from.recv() {
                Ok(Message::Bytes(bytes)) => self.now = Some(bytes),
                Ok(Message::End) => self.is_over = true,
                Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        Ok(self.now.as_ref().map_or(&[], |now| &now.bytes[self.at..]))
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_readers_get_all_bytes() {
        let (mut sender, readers) = channel::<2>();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| ((number * 7) >> 3) as u8).collect();
        std::thread::scope(|scope| {
            let all = readers.map(|mut reader| {
                scope.spawn(move || {
                    let mut all = Vec::new();
                    reader.read_to_end(&mut all).map(|_| all)
                })
            });
            let mut from = &bytes[..1_000_000];
            while sender.send_from(&mut from).unwrap().unwrap() > 0 {}
            bytes[1_000_000..].chunks(77_777).for_each(|part| sender.write(part).unwrap());
            sender.finish().unwrap();
            for read in all {
                assert!(read.join().unwrap().unwrap() == bytes);
            }
        });
    }

    #[test]
    fn a_cut_is_no_end() {
        let (mut sender, [mut reader]) = channel::<1>();
        sender.write(b"half").unwrap();
        drop(sender);
        assert!(is_cut_off(&reader.read_to_end(&mut Vec::new()).unwrap_err()));
        let (mut sender, [reader]) = channel::<1>();
        drop(reader);
        assert!(sender.send_from(&mut &b"x"[..]).unwrap().is_err());
    }
}
