//! Bytes to and from the server: the socket and its read buffer.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use super::messages::{self, Malformed, Message};

/// Room that is made in the read buffer. A Unix socket hands over at most about 200 KiB at once.
const READ_BUFFER: usize = 256 << 10;
/// A read is not worth its system call with less room than this.
const LEAST_ROOM: usize = 64 << 10;

/// A socket, with or without TLS.
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// A socket and what was read from it but not yet taken.
pub(super) struct Wire {
    stream: Stream,
    pub(super) input: BytesMut,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
        }
    }

    /// Reads what is there, at least one byte. Cancel safe.
    pub(super) async fn fill(&mut self) -> io::Result<()> {
        if self.input.capacity() - self.input.len() < LEAST_ROOM {
            self.input.reserve(READ_BUFFER);
        }
        let count = match &mut self.stream {
            Stream::Unix(stream) => stream.read_buf(&mut self.input).await?,
            Stream::Tcp(stream) => stream.read_buf(&mut self.input).await?,
            Stream::Tls(stream) => stream.read_buf(&mut self.input).await?,
        };
        match count {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed it",
            )),
            _ => Ok(()),
        }
    }

    /// The next whole message. Cancel safe.
    pub(super) async fn message(&mut self) -> Result<Message, ReadError> {
        loop {
            if let Some(message) = messages::take(&mut self.input)? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Unix(stream) => stream.write_all(bytes).await,
            Stream::Tcp(stream) => stream.write_all(bytes).await,
            Stream::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    pub(super) async fn shut_down(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Unix(stream) => stream.shutdown().await,
            Stream::Tcp(stream) => stream.shutdown().await,
            Stream::Tls(stream) => stream.shutdown().await,
        }
    }
}
