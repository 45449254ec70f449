//! What every kubelet demands of a registration: `isVersionCompatibleWithPlugin` and `IsExtendedResourceName` of
//! Kubernetes, written again here so that the daemon's own check is not its own judge.

use zerobridge_proto::deviceplugin::RegisterRequest;

/// # Errors
///
/// What the kubelet would say.
pub fn check_registration(request: &RegisterRequest) -> Result<(), String> {
    if request.version != "v1beta1" {
        return Err(format!("version {}", request.version));
    }
    let name = &request.resource_name;
    let Some((prefix, rest)) = name.split_once('/') else { return Err(format!("{name} has no slash")) };
    if prefix.contains("kubernetes.io") || name.starts_with("requests.") {
        return Err(format!("{name} is no extended resource"));
    }
    let subdomain = format!("requests.{prefix}");
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if subdomain.len() > 253 || !subdomain.split('.').all(label) {
        return Err(format!("{subdomain} is no DNS subdomain"));
    }
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = rest.as_bytes();
    let inner = bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b));
    if rest.len() > 63 || !inner || !edge(bytes.first()) || !edge(bytes.last()) {
        return Err(format!("{rest} is no qualified name"));
    }
    if request.endpoint.contains('/') {
        return Err(format!("endpoint {} is no file name", request.endpoint));
    }
    Ok(())
}
