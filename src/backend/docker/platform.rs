//! Platforms as Compose files name them: `os`, `arch`, `os/arch` or `os/arch/variant`.

use bollard::models::ImageInspect;

/// What a service asks for. The other names of an architecture are read as the engine reads them.
struct Platform<'a> {
    os: &'a str,
    arch: Option<&'a str>,
    variant: Option<&'a str>,
}

/// Whether the image was made for the platform, as far as the platform says and the image tells.
pub(super) fn is_for(image: &ImageInspect, platform: &str) -> bool {
    let platform = platform.to_ascii_lowercase();
    let wanted = read(&platform);
    let known = |text: &Option<String>| text.as_deref().unwrap_or_default().to_ascii_lowercase();
    let (os, arch, variant) = (known(&image.os), known(&image.architecture), known(&image.variant));
    let (arch, variant) = normal(&arch, Some(&variant));
    (os.is_empty() || os == wanted.os)
        && (arch.is_empty() || wanted.arch.is_none_or(|wanted| wanted == arch))
        && (variant.is_none() || wanted.variant.is_none() || wanted.variant == variant)
}

/// Whether a host of the platform `host` runs `platform` without emulation. Variants are the image's to choose.
pub(super) fn is_native(platform: &str, host: &str) -> bool {
    let (platform, host) = (platform.to_ascii_lowercase(), host.to_ascii_lowercase());
    let (wanted, host) = (read(&platform), read(&host));
    wanted.os == host.os && wanted.arch.is_none_or(|arch| Some(arch) == host.arch)
}

fn read(text: &str) -> Platform<'_> {
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

fn normal<'a>(arch: &'a str, variant: Option<&'a str>) -> (&'a str, Option<&'a str>) {
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
    fn an_image_is_for_a_platform_or_not() {
        for (os, arch, variant, platform, fits) in [
            ("linux", "amd64", "", "linux/amd64", true),
            ("linux", "amd64", "", "linux/x86_64", true),
            ("linux", "amd64", "", "amd64", true),
            ("linux", "amd64", "", "linux", true),
            ("linux", "amd64", "", "Linux/AMD64", true),
            ("linux", "amd64", "", "linux/arm64", false),
            ("linux", "amd64", "", "windows/amd64", false),
            ("linux", "arm64", "v8", "linux/arm64", true),
            ("linux", "arm64", "", "linux/arm64/v8", true),
            ("linux", "arm64", "", "aarch64", true),
            ("linux", "arm", "v7", "linux/arm/v7", true),
            ("linux", "arm", "v7", "linux/arm/7", true),
            ("linux", "arm", "v6", "linux/arm/v7", false),
            ("linux", "arm", "v6", "linux/arm", true),
            ("linux", "arm", "v7", "armhf", true),
            ("linux", "arm64", "", "linux/arm", false),
            ("linux", "386", "", "i386", true),
            ("", "", "", "linux/arm64", true),
        ] {
            let text = |text: &str| Some(text.to_owned());
            let image =
                ImageInspect { os: text(os), architecture: text(arch), variant: text(variant), ..Default::default() };
            assert_eq!(is_for(&image, platform), fits, "{os}/{arch}/{variant} for {platform}");
        }
    }
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
}
