//! The `holdfast` program. Everything is in the library, where tests can reach it.

fn main() -> std::process::ExitCode {
    holdfast::cli::main()
}
