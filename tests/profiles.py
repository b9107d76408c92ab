"""Color profiles that several test modules use."""

from PIL import ImageCms


def wide_profile() -> bytes:
    """sRGB's profile with its red and green tags exchanged: unlike sRGB, and known exactly."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
