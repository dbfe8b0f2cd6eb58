//! A line to the server that swallows replies when told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::server::server;

/// Passes bytes on, until it is told to swallow what the server says, and then to hang up.
pub struct Proxy {
    pub port: u16,
    pub mute: Arc<AtomicBool>,
    pub swallowed: Arc<AtomicUsize>,
    pub told: Arc<Notify>,
}

impl Proxy {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            mute: Arc::default(),
            swallowed: Arc::default(),
            told: Arc::default(),
        };
        let (mute, swallowed, told) = (
            Arc::clone(&proxy.mute),
            Arc::clone(&proxy.swallowed),
            Arc::clone(&proxy.told),
        );
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(("127.0.0.1", server().port))
                    .await
                    .unwrap();
                let (mute, swallowed, told) =
                    (Arc::clone(&mute), Arc::clone(&swallowed), Arc::clone(&told));
                tokio::spawn(async move {
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let up = tokio::spawn(async move {
                        tokio::io::copy(&mut from_client, &mut to_server).await.ok();
                    });
                    let mut buffer = vec![0; 64 * 1024];
                    while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                        if mute.load(Ordering::SeqCst) {
                            swallowed.fetch_add(count, Ordering::SeqCst);
                            told.notify_one();
                            break;
                        }
                        if to_client.write_all(&buffer[..count]).await.is_err() {
                            break;
                        }
                    }
                    // Both halves go: the client sees the end.
                    up.abort();
                });
            }
        });
        proxy
    }
}
