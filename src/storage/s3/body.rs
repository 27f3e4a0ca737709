use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::storage::Body;
use crate::storage::parts::Sha256Digest;

/// Bytes handed to the connection at a time.
const PIECE: usize = 256 << 10;

/// A body that is sent as it lies in memory.
struct BodyChunks {
    pieces: VecDeque<Bytes>,
    left: u64,
}

impl http_body::Body for BodyChunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        while self.pieces.front().is_some_and(Bytes::is_empty) {
            self.pieces.pop_front();
        }
        let Some(front) = self.pieces.front_mut() else {
            return Poll::Ready(None);
        };
        let piece = front.split_to(front.len().min(PIECE));
        self.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The body in the client's form.
pub fn stream(body: Body) -> ByteStream {
    let left = body.len();
    ByteStream::new(SdkBody::from_body_1_x(BodyChunks {
        pieces: body.0.into(),
        left,
    }))
}

/// A SHA-256: what S3 takes as a request's checksum and signs.
/// A digest as checksum headers have it.
pub fn in_base64(digest: &Sha256Digest) -> String {
    BASE64_STANDARD.encode(digest)
}

/// Signs a request over a digest that is known, so that its body is neither read twice nor sent unsigned.
#[derive(Debug)]
pub struct SignedOver(pub Sha256Digest);

impl Intercept for SignedOver {
    fn name(&self) -> &'static str {
        "SignedOver"
    }

    fn modify_before_signing(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let hex = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        config
            .interceptor_state()
            .store_put(PayloadSigningOverride::Precomputed(hex));
        Ok(())
    }
}
