//! Whether an image is for a platform.

use bollard::models::ImageInspect;

use crate::domain::platform::{normal, read};

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
}
