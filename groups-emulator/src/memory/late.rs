use std::collections::BTreeMap;

use ureq_proto::http::Request;

use crate::reply::{Reply, ReplyFormat};

/// The requests that are still to be applied, in the order of their arrival.
#[derive(Default)]
pub(crate) struct LateRequests(BTreeMap<usize, LateRequest>);

/// A request that was received in full, and is applied later.
pub(crate) struct LateRequest {
    pub(crate) number: usize,
    pub(crate) request: Request<()>,
    /// The JSON of its body, or the reply that refuses it.
    pub(crate) json: Result<Vec<u8>, Reply>,
    pub(crate) format: ReplyFormat,
}

impl LateRequests {
    pub(crate) fn push(&mut self, request: LateRequest) {
        self.0.insert(request.number, request);
    }

    /// Removes the request of this number, unless it was applied already.
    pub(crate) fn take(&mut self, number: usize) -> Option<LateRequest> {
        self.0.remove(&number)
    }

    /// Returns whether the request of this number is still to be applied.
    pub(crate) fn contains(&self, number: usize) -> bool {
        self.0.contains_key(&number)
    }

    /// Removes the oldest request.
    pub(crate) fn take_first(&mut self) -> Option<LateRequest> {
        self.0.pop_first().map(|(_, request)| request)
    }
}
