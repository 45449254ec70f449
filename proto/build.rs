//! Compiles the kubelet's gRPC contracts, in pure Rust: nobody needs a `protoc` to build Zerobridge.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    #[cfg(feature = "grpc")]
    for contract in ["deviceplugin/v1beta1/api.proto", "podresources/v1/api.proto"] {
        let descriptors = protox::compile([contract], ["proto"])?;
        tonic_prost_build::configure()
            .build_client(true)
            .build_server(true)
            .emit_rerun_if_changed(false)
            .compile_fds(descriptors)?;
    }
    Ok(())
}
