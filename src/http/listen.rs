//! Connections: as many at once as the settings say, TLS, and bounds on what a peer may send and how slowly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use super::options::{HttpOptions, Tls};
use crate::error::{Hint, hints, one_line};
use crate::service::status::Http;

/// For the handshake of TLS, for a request's head, and between two requests.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// A peer that takes nothing of its answer for so long is given up.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// Bytes of a request's head: its line and headers.
const HEAD_BYTES: usize = 16 << 10;
/// Headers of a request.
const HEADERS: usize = 64;
/// Bytes buffered for a connection.
const BUFFER: usize = 64 << 10;
/// For requests in work when the service stops.
const STOP_TIME: Duration = Duration::from_secs(3);
/// After an accept that failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Between two attempts to listen.
const AGAIN: Duration = Duration::from_secs(10);

/// The address to answer on, which somebody else may have for now.
pub struct Port {
    address: SocketAddr,
    tls: Option<Tls>,
    most: usize,
    connections: Option<HttpConnections>,
    state: watch::Sender<Http>,
}

impl Port {
    /// Listens, if there is where to; what is in the way is told, and tried again once this runs.
    pub async fn open(options: &HttpOptions) -> Option<Self> {
        let HttpOptions {
            listen,
            tls,
            max_connections: most,
            ..
        } = options.clone();
        let address = listen?;
        let state = watch::Sender::new(Http {
            url: url(tls.as_ref(), address),
            certificate_until: tls.as_ref().and_then(|tls| tls.until),
            failed: None,
        });
        let mut port = Self {
            address,
            tls,
            most,
            connections: None,
            state,
        };
        if let Err(error) = port.listen().await {
            tracing::warn!(
                "{}: HTTP is not served; trying again every {} s; the hooks are served. HINT: {}",
                one_line(&error),
                AGAIN.as_secs(),
                hints(&error).join("; ")
            );
        }
        Some(port)
    }

    /// Whether it is answered on.
    pub fn state(&self) -> watch::Receiver<Http> {
        self.state.subscribe()
    }

    async fn listen(&mut self) -> anyhow::Result<()> {
        let tried = HttpConnections::bind(self.address, self.tls.clone(), self.most).await;
        let tried = tried.and_then(|connections| Ok((connections.address()?, connections)));
        let (address, connections) = tried.inspect_err(|error| {
            self.state
                .send_modify(|state| state.failed = Some(one_line(error)));
        })?;
        let url = url(self.tls.as_ref(), address);
        tracing::info!("answering on {url}");
        self.state.send_modify(|state| {
            (state.url, state.failed) = (url, None);
        });
        self.connections = Some(connections);
        Ok(())
    }

    /// Serves until `stopped` says so, as soon as it can.
    pub async fn run(
        mut self,
        router: Router,
        mut stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        loop {
            if let Some(connections) = self.connections.take() {
                return connections.run(router, stopped).await;
            }
            tokio::select! {
                () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => return Ok(()),
                () = sleep(AGAIN) => (),
            }
            // That it failed was told.
            drop(self.listen().await);
        }
    }
}

fn url(tls: Option<&Tls>, address: SocketAddr) -> String {
    format!(
        "{}://{address}",
        if tls.is_some() { "https" } else { "http" }
    )
}

/// The peer of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// The owner of the port.
pub struct HttpConnections {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
}

impl HttpConnections {
    /// Listens. Errors: the address is taken, or not this machine's.
    pub async fn bind(address: SocketAddr, tls: Option<Tls>, most: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))
            .hint("does another service listen there? End it, or change `http.listen` (\"\" for no HTTP)")?;
        Ok(Self {
            listener,
            tls: tls.map(|tls| TlsAcceptor::from(tls.config)),
            places: Arc::new(Semaphore::new(most.max(1))),
        })
    }

    /// The address in use: with port 0 the kernel's choice.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.listener.local_addr()?)
    }

    /// Serves until `stopped` says so, then until the requests in work are answered.
    pub async fn run(
        self,
        router: Router,
        mut stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            let next = async {
                // Further ones wait in the socket's queue.
                let place = self.places.clone().acquire_owned().await;
                (place, self.listener.accept().await)
            };
            tokio::select! {
                () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => break,
                Some(ended) = connections.join_next() => log_panic(ended),
                (place, accepted) = next => match accepted {
                    Ok((socket, peer)) => {
                        let (tls, router, stopped) = (self.tls.clone(), router.clone(), stopped.clone());
                        connections.spawn(async move {
                            if let Err(error) = serve(socket, Peer(peer), tls, router, stopped).await {
                                tracing::debug!("HTTP connection of {peer}: {error:#}");
                            }
                            drop(place);
                        });
                    }
                    Err(error) => {
                        tracing::warn!("cannot accept an HTTP connection: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.listener);
        let finish = async {
            while let Some(ended) = connections.join_next().await {
                log_panic(ended);
            }
        };
        // Who is slower than that asks again.
        let _ = timeout(STOP_TIME, finish).await;
        Ok(())
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!("an HTTP connection's task failed: {error}");
    }
}

async fn serve(
    socket: TcpStream,
    peer: Peer,
    tls: Option<TlsAcceptor>,
    router: Router,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    match tls {
        None => exchange(socket, peer, router, stopped).await,
        Some(tls) => {
            exchange(
                timeout(HEAD_TIME, tls.accept(socket)).await??,
                peer,
                router,
                stopped,
            )
            .await
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + 'static,
    peer: Peer,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIME));
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_header_size(HEAD_BYTES)
        .max_headers(HEADERS);
    // Who stops speaking is gone: what was asked for is not fetched for nobody.
    server.max_buf_size(BUFFER).half_close(false);
    let routes = TowerToHyperService::new(router);
    let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(peer);
        routes.call(request)
    });
    let connection = server.serve_connection(TokioIo::new(Box::pin(stream)), answer);
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => return Ok(ended?),
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}
