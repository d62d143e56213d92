"""Students: any AutoModel backbone with a latent head and a classifier; and the processors of theirs that are ours."""

from transformers import AutoFeatureExtractor, AutoImageProcessor

from .configuration import CoLearningStudentConfig
from .grayscale import GrayscaleImageProcessor
from .spectrogram import SpectrogramFeatureExtractor


# Here and not in the files that travel: so transformers finds them by name where hf_colearn is imported, and asks for
# `trust_remote_code` where it is not.
AutoImageProcessor.register(CoLearningStudentConfig, image_processor_classes={"pil": GrayscaleImageProcessor})
AutoFeatureExtractor.register(CoLearningStudentConfig, SpectrogramFeatureExtractor)
