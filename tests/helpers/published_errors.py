"""Published errors on ImageNet-C."""

# Means over the severities of AlexNet, of which alexnet.json has the five values
ALEXNET_MEANS = dict(
    **dict(gaussian_noise=0.886428, shot_noise=0.894468, impulse_noise=0.922640),
    **dict(defocus_blur=0.819880, glass_blur=0.826268, motion_blur=0.785948, zoom_blur=0.798360),
    **dict(snow=0.866816, frost=0.826572, fog=0.819324, brightness=0.564592, contrast=0.853204),
    **dict(elastic_transform=0.646056, pixelate=0.717840, jpeg_compression=0.606500),
    **dict(speckle_noise=0.845388, gaussian_blur=0.787108, spatter=0.717512, saturate=0.658248),
)
# Top-1 accuracies (%) of ResNet-50, in the order of the 15 corruptions
ACCURACIES = (
    *(29.29, 27.03, 23.81, 38.75, 26.79, 38.67, 36.24, 32.53, 38.14, 45.83, 68.02, 39.06),
    *(45.25, 44.79, 53.41),
)
RESNET50 = {
    name: 1 - top1 / 100 for name, top1 in zip(list(ALEXNET_MEANS)[:15], ACCURACIES, strict=True)
}
