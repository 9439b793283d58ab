//! `daxvisor`: see [`vmm::cli`].

fn main() -> std::process::ExitCode {
    vmm::cli::main()
}
