//! Platforms as Compose files name them: `os`, `arch`, `os/arch` or `os/arch/variant`.

/// What a service asks for. The other names of an architecture are read as the engine reads them.
pub(crate) struct Platform<'a> {
    /// The operating system.
    pub(crate) os: &'a str,
    /// Its architecture under one name, if it names one.
    pub(crate) arch: Option<&'a str>,
    /// Likewise its variant.
    pub(crate) variant: Option<&'a str>,
}

/// Whether a host of the platform `host` runs `platform` without emulation. Variants are the image's to choose.
pub fn is_native(platform: &str, host: &str) -> bool {
    let (platform, host) = (platform.to_ascii_lowercase(), host.to_ascii_lowercase());
    let (wanted, host) = (read(&platform), read(&host));
    wanted.os == host.os && wanted.arch.is_none_or(|arch| Some(arch) == host.arch)
}

/// The platform of this process: that of its host.
pub fn own_platform() -> String {
    let (arch, variant) = normal(std::env::consts::ARCH, None);
    let variant = variant.map(|variant| format!("/{variant}")).unwrap_or_default();
    format!("{}/{arch}{variant}", std::env::consts::OS)
}

/// Reads one in lower case.
pub(crate) fn read(text: &str) -> Platform<'_> {
    let mut parts = text.splitn(3, '/');
    let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    match second {
        None if matches!(first, "linux" | "windows" | "darwin" | "freebsd") => {
            Platform { os: first, arch: None, variant: None }
        }
        None => {
            let (arch, variant) = normal(first, None);
            Platform { os: "linux", arch: Some(arch), variant }
        }
        Some(arch) => {
            let (arch, variant) = normal(arch, third);
            Platform { os: first, arch: Some(arch), variant }
        }
    }
}

/// One name for the several that an architecture has, with its variant.
pub(crate) fn normal<'a>(arch: &'a str, variant: Option<&'a str>) -> (&'a str, Option<&'a str>) {
    let variant = variant.filter(|variant| !variant.is_empty());
    match (arch, variant) {
        ("x86_64" | "x86-64" | "amd64", _) => ("amd64", variant.filter(|variant| *variant != "v1")),
        ("i386", _) => ("386", None),
        // There is one 64-bit variant that everybody means.
        ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
        ("aarch64" | "arm64", other) => ("arm64", other),
        ("armhf", _) => ("arm", Some("v7")),
        ("armel", _) => ("arm", Some("v6")),
        ("arm", Some("5")) => ("arm", Some("v5")),
        ("arm", Some("6")) => ("arm", Some("v6")),
        ("arm", Some("7")) => ("arm", Some("v7")),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_runs_its_own_platform_natively() {
        for (platform, host, native) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/amd64/v3", "linux/amd64", true),
            ("x86_64", "linux/amd64", true),
            ("linux", "linux/amd64", true),
            ("Linux/AMD64", "linux/amd64", true),
            ("linux/386", "linux/amd64", false),
            ("linux/arm64", "linux/amd64", false),
            ("arm", "linux/arm64", false),
            ("aarch64", "linux/arm64", true),
            ("windows/amd64", "linux/amd64", false),
            ("windows", "linux/amd64", false),
        ] {
            assert_eq!(is_native(platform, host), native, "{platform} on {host}");
        }
    }

    #[test]
    fn this_host_runs_what_it_is() {
        let own = own_platform();
        assert!(is_native(&own, &own) && !is_native("linux/s390x", &own), "{own}");
    }
}
