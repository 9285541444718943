//! A link over something else than the system's UDP: what simulations carry datagrams on.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// A socket, as a simulated network gives it.
pub trait Datagrams: fmt::Debug + Send + Sync + 'static {
    /// Returns the address that others reach it by.
    fn local_address(&self) -> SocketAddr;

    /// Takes a datagram over; it may be lost like any other.
    fn send(&self, to: SocketAddr, bytes: &[u8]);

    /// Returns the next datagram that arrived and who sent it; wakes `context` when there is one.
    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<(SocketAddr, Vec<u8>)>;

    /// Returns the seed of the endpoint's random numbers, so that equal runs send equal packets.
    fn seed(&self) -> [u8; 32];
}

/// [`Datagrams`] as quinn wants them.
#[derive(Debug)]
pub(super) struct Tap(pub(super) Arc<dyn Datagrams>);

impl AsyncUdpSocket for Tap {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let each = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(each) {
            self.0.send(transmit.destination, datagram);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(buffer), Some(meta)) = (buffers.first_mut(), meta.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        let Poll::Ready((addr, bytes)) = self.0.poll_receive(context) else { return Poll::Pending };
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        *meta = RecvMeta { addr, len, stride: len, ..RecvMeta::default() };
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.local_address())
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// A simulated network takes everything, and loses what it has no room for.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
