"""Students: any AutoModel backbone with a latent head and a classifier; and the processors of theirs that are ours."""

from transformers import AutoFeatureExtractor, AutoImageProcessor

from .configuration import CoLearningStudentConfig
from .grayscale import GrayscaleImageProcessor
from .spectrogram import SpectrogramFeatureExtractor


# Here and not in the files that travel: so transformers finds them by name where hf_colearn is imported, and asks for
# `trust_remote_code` where it is not. Files of earlier versions call the image processor by the second name; transformers
# then takes the first of the group.
AutoImageProcessor.register(
    CoLearningStudentConfig,
    image_processor_classes={
        "pil": GrayscaleImageProcessor,
        "former": type("GreyImageProcessor", (GrayscaleImageProcessor,), {}),
    },
)
AutoFeatureExtractor.register(CoLearningStudentConfig, SpectrogramFeatureExtractor)
