//! Hands the linker the order of functions (`src/start.ld`) for release builds, whose idle memory it is for.

fn main() {
    println!("cargo::rerun-if-changed=src/start.ld");
    let is = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|found| found == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{root}/src/start.ld");
    }
}
