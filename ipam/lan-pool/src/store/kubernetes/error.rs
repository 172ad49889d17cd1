//! Mistakes in the access to a cluster: a kubeconfig, a certificate or a program for credentials is missing or wrong.

/// `operation object: cause`. It is a mistake of this node, and no request was sent.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {object}: {cause}")]
pub(super) struct AccessError {
    operation: &'static str,
    object: String,
    cause: String,
}

impl AccessError {
    pub(super) fn new(operation: &'static str, object: impl ToString, cause: impl ToString) -> Self {
        Self { operation, object: object.to_string(), cause: cause.to_string() }
    }
}

pub(super) type Result<T> = std::result::Result<T, AccessError>;

impl From<AccessError> for crate::Error {
    fn from(AccessError { operation, object, cause }: AccessError) -> Self {
        Self::Config { place: format!("{operation} {object}"), cause }
    }
}
