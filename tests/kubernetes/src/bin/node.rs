//! The first process of a node of the test cluster, and the supervisor above it.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    kubernetes::init::main()
}
