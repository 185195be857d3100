//! A relay between a caller and an endpoint that can go silent, as a network does.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub struct Relay {
    pub address: SocketAddr,
    silent: watch::Sender<bool>,
    _serving: JoinSet<()>,
}

impl Relay {
    /// A relay to this port of this machine.
    pub async fn start(port: u16) -> io::Result<Self> {
        Relay::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?, port)
    }

    /// The same, for those who have connected to this and for those who will.
    pub fn on(listener: TcpListener, port: u16) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let silent = watch::Sender::new(false);
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, port, silent.subscribe()));
        Ok(Relay { address, silent, _serving: serving })
    }

    /// Nothing passes any more, in either direction, and no connection ends.
    pub fn fall_silent(&self) {
        self.silent.send_replace(true);
    }
}

async fn serve(listener: TcpListener, port: u16, silent: watch::Receiver<bool>) {
    let mut copies = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let far = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("it listens");
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        copies.spawn(copy(near_in, far_out, silent.clone()));
        copies.spawn(copy(far_in, near_out, silent.clone()));
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut silent: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            biased;
            () = async { drop(silent.wait_for(|silent| *silent).await) } => None,
            read = from.read(&mut buffer) => read.ok(),
        };
        // When it is silent both ends stay open for good.
        let Some(read) = read else { return std::future::pending().await };
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
