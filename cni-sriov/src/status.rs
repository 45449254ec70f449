//! STATUS: would an ADD find what it needs?

use zerobridge_proto::cni::{CniError, ErrorCode};

use crate::call::Call;
use crate::config::Config;

/// Checks the configuration and the ledger.
///
/// # Errors
/// The configuration's own error, or code 50 when the ledger cannot be used.
pub(crate) fn status(call: &Call<'_>) -> Result<(), CniError> {
    Config::parse(call.config, &call.environment.args)?;
    call.ledger().map(drop).map_err(|error| CniError { code: ErrorCode::NOT_AVAILABLE, ..error })
}
