"""The architectures: one row each, all of the ``transformers`` package, small and random.

A row says what differs from ``SMALL``, which sets whatever a configuration has of the usual sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SMALL: Mapping[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "d_model": 32,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": False,
}
"""Sizes by the names that most configurations use; what a configuration lacks is left out."""


@dataclass(frozen=True, slots=True)
class Row:
    """One architecture.

    Args:
        name: of the row.
        config: class of the configuration.
        model: class of the model.
        kind: what goes in, a key of ``inputs.INPUTS``.
        overrides: what the configuration takes besides ``SMALL``.
    """

    name: str
    config: str
    model: str
    kind: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


def _rows(kind: str, head: str, table: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Rows of one head: stems such as ``Bert`` by what their configurations need."""
    return [Row(f"{s}{head}", f"{s}Config", f"{s}{head}", kind, o) for s, o in table.items()]


_HEAD_DIM = {"head_dim": 8}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_MOE = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2}

ENCODERS = _rows(
    "text",
    "ForSequenceClassification",
    {
        "Albert": {"embedding_size": 16},
        "Bert": {},
        "BigBird": {"attention_type": "original_full"},
        "Camembert": {},
        "Canine": {
            "sep_token_id": 3,
            "cls_token_id": 2,
            "num_hash_buckets": 64,
            "local_transformer_stride": 8,
        },
        "ConvBert": {"embedding_size": 32},
        "Data2VecText": {},
        "Deberta": {"pos_att_type": ["p2c", "c2p"], "relative_attention": True},
        "DebertaV2": {"pos_att_type": ["p2c", "c2p"], "relative_attention": True},
        "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
        "Electra": {"embedding_size": 16},
        "Ernie": {},
        "Esm": {"position_embedding_type": "rotary", "mask_token_id": 3},
        "EuroBert": {},
        "FNet": {},
        "Flaubert": {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "n_words": 64},
        "Funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "n_head": 4, "d_head": 8},
        "Jamba": {"mamba_d_state": 4, "attn_layer_period": 2, "attn_layer_offset": 1, **_MOE},
        "LayoutLM": {},
        "LayoutLMv3": {"visual_embed": False, "coordinate_size": 6, "shape_size": 4},
        "Lilt": {"hidden_size": 48, "channel_shrink_ratio": 2},
        "Longformer": {"attention_window": 8},
        "MPNet": {},
        "MegatronBert": {},
        "MobileBert": {"embedding_size": 16, "true_hidden_size": 16, "intra_bottleneck_size": 16},
        "ModernBert": {"local_attention": 8},
        "NomicBert": {},
        "Nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 4},
        "RemBert": {"input_embedding_size": 16, "output_embedding_size": 16},
        "Roberta": {},
        "RobertaPreLayerNorm": {},
        "RoFormer": {"embedding_size": 32},
        "SqueezeBert": {"embedding_size": 32},
        "XLM": {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "n_words": 64},
        "XLMRoberta": {},
        "XLNet": {"n_layer": 2, "n_head": 4, "d_inner": 48},
        "Xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    },
)
DECODERS = _rows(
    "text",
    "ForSequenceClassification",
    {
        "BioGpt": {},
        "Bloom": {"n_layer": 2, "n_head": 4},
        "Falcon": {},
        "GPT2": _GPT,
        "GPTBigCode": _GPT,
        "GPTNeo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
        "GPTNeoX": {},
        "Gemma": _HEAD_DIM,
        "Gemma2": {**_HEAD_DIM, "sliding_window": 8},
        "Llama": {},
        "Mistral": {"sliding_window": 8},
        "Mixtral": _MOE,
        "Mpt": {"n_layers": 2, "n_heads": 4, "max_seq_len": 64},
        "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},
        "OpenAIGPT": _GPT,
        "Phi": {},
        "Phi3": {},
        "Qwen2": {},
        "Qwen2Moe": {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 24, **_MOE},
        "Qwen3": _HEAD_DIM,
        "StableLm": {},
        "Starcoder2": {},
    },
)
CAUSAL = [
    *_rows(
        "causal",
        "ForCausalLM",
        {
            "BitNet": {},
            "CodeGen": {**_GPT, "rotary_dim": 4, "n_ctx": 64, "n_head": 8, "n_embd": 64},
            "Cohere": {},
            "DeepseekV3": {
                "q_lora_rank": 16,
                "kv_lora_rank": 8,
                "qk_rope_head_dim": 4,
                "v_head_dim": 8,
                "qk_nope_head_dim": 4,
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "n_group": 2,
                "topk_group": 1,
                "first_k_dense_replace": 1,
                "moe_intermediate_size": 24,
                "num_key_value_heads": 4,
            },
            "FalconMamba": {"state_size": 4},
            "GPTJ": {**_GPT, "rotary_dim": 4},
            "GptOss": {**_HEAD_DIM, **_MOE, "sliding_window": 8},
            "Granite": {},
            "Helium": _HEAD_DIM,
            "Llama": {},
            "Mamba": {"state_size": 4},
            "Mamba2": {"state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 1},
            "Nemotron": {},
            "Mixtral": _MOE,
            "Olmo2": {},
            "Olmoe": _MOE,
            "Persimmon": {},
            "Phimoe": _MOE,
            "Qwen2Moe": {
                "moe_intermediate_size": 24,
                "shared_expert_intermediate_size": 24,
                **_MOE,
            },
            "Qwen3Moe": {**_HEAD_DIM, "moe_intermediate_size": 24, **_MOE},
            "GraniteMoe": _MOE,
            "Ernie4_5_Moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24},
            "Glm4Moe": {
                **_HEAD_DIM,
                "n_routed_experts": 4,
                "num_experts_per_tok": 2,
                "first_k_dense_replace": 1,
                "moe_intermediate_size": 24,
            },
            "Rwkv": {"attention_hidden_size": 32, "context_length": 64},
            "SmolLM3": {},
            "TrOCR": {},
            "XGLM": {"num_layers": 2, "attention_heads": 4, "ffn_dim": 48},
            "xLSTM": {"num_heads": 4, "num_blocks": 2, "chunk_size": 8},
        },
    ),
    Row(
        *("Gemma3ForCausalLM", "Gemma3TextConfig", "Gemma3ForCausalLM", "causal"),
        {**_HEAD_DIM, "sliding_window": 8},
    ),
    Row("GPT2LMHeadModel", "GPT2Config", "GPT2LMHeadModel", "causal", _GPT),
    Row("CTRLLMHeadModel", "CTRLConfig", "CTRLLMHeadModel", "causal", {**_GPT, "dff": 48}),
    *_rows("text", "ForMaskedLM", {"Bert": {}, "Electra": {"embedding_size": 16}, "Roberta": {}}),
]
_T5 = {"d_kv": 8, "d_ff": 48, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 4}
SEQUENCE_TO_SEQUENCE = [
    *_rows(
        "seq2seq",
        "ForConditionalGeneration",
        {
            "Bart": {},
            "Blenderbot": {},
            "LED": {"attention_window": 8, "max_encoder_position_embeddings": 64},
            "LongT5": _T5,
            "M2M100": {},
            "MBart": {},
            "Mvp": {},
            "Pegasus": {},
            "PLBart": {},
            "ProphetNet": {
                "num_encoder_layers": 1,
                "num_decoder_layers": 1,
                "ngram": 2,
                "num_encoder_attention_heads": 4,
                "num_decoder_attention_heads": 4,
            },
            "SwitchTransformers": {**_T5, "num_experts": 2, "num_sparse_encoder_layers": 1},
            "T5": _T5,
            "UMT5": _T5,
        },
    ),
    Row("MarianMTModel", "MarianConfig", "MarianMTModel", "seq2seq", {"decoder_vocab_size": 64}),
    Row(
        *("FSMTForConditionalGeneration", "FSMTConfig", "FSMTForConditionalGeneration", "seq2seq"),
        {"langs": ["en", "de"], "src_vocab_size": 64, "tgt_vocab_size": 64},
    ),
]
_STAGES = {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2}
_SWIN = {"embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4], "window_size": 4, "patch_size": 2}
VISION = _rows(
    "image",
    "ForImageClassification",
    {
        "Beit": {},
        "Bit": {
            "hidden_sizes": [32, 64],
            "depths": [1, 1],
            "embedding_size": 16,
            "num_groups": 4,
        },
        "ConvNext": _STAGES | {"patch_size": 4},
        "ConvNextV2": _STAGES | {"patch_size": 4},
        "Cvt": {
            "embed_dim": [16, 32, 32],
            "num_heads": [1, 2, 4],
            "depth": [1, 2, 3],
        },
        "Data2VecVision": {},
        "DeiT": {},
        "Dinov2": {},
        "Dinov2WithRegisters": {},
        "DonutSwin": _SWIN,
        "EfficientNet": {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
        "FocalNet": {"embed_dim": 16, "depths": [1, 1], "patch_size": 2},
        "HGNetV2": {
            "stem_channels": [3, 8, 16],
            "stage_in_channels": [16, 16],
            "stage_mid_channels": [8, 16],
            "stage_out_channels": [16, 32],
            "stage_num_blocks": [1, 1],
            "stage_downsample": [False, True],
            "stage_light_block": [False, True],
            "stage_kernel_size": [3, 5],
            "stage_numb_of_layers": [2, 2],
            "embedding_size": 16,
            "depths": [1, 1],
            "hidden_sizes": [16, 32],
            "downsample_in_first_stage": False,
        },
        "Hiera": {
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "patch_size": [7, 7],
            "image_size": [64, 64],
            "masked_unit_size": [8, 8],
            "num_query_pool": 1,
        },
        "IJepa": {},
        "Levit": {
            "image_size": 64,
            "hidden_sizes": [16, 32, 48],
            "num_attention_heads": [1, 2, 3],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
            "patch_size": 16,
        },
        "MobileNetV1": {"depth_multiplier": 0.25},
        "MobileNetV2": {"depth_multiplier": 0.25},
        "MobileViT": {
            "hidden_sizes": [16, 24, 32],
            "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32],
            "patch_size": 2,
            "image_size": 64,
        },
        "MobileViTV2": {"width_multiplier": 0.25, "image_size": 64, "patch_size": 2},
        "PoolFormer": {
            "hidden_sizes": [16, 32, 32, 32],
            "depths": [1, 1, 1, 1],
            "patch_size": 7,
        },
        "Pvt": {
            "hidden_sizes": [16, 16, 32, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 4],
            "patch_sizes": [4, 2, 2, 2],
        },
        "PvtV2": {
            "hidden_sizes": [16, 16, 32, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 4],
            "mlp_ratios": [2, 2, 2, 2],
        },
        "RegNet": {"embedding_size": 16, "groups_width": 8, **_STAGES},
        "ResNet": {"embedding_size": 16, **_STAGES},
        "Segformer": {
            "hidden_sizes": [16, 16, 32, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 4],
        },
        "Siglip": {"vision_config": "small"},
        "SwiftFormer": {"embed_dims": [16, 24, 32, 48], "depths": [1, 1, 1, 1]},
        "Swin": _SWIN,
        "Swinv2": _SWIN,
        "TextNet": {"stem_out_channels": 8, "hidden_sizes": [8, 8, 16, 16, 32]},
        "ViT": {},
        "ViTMSN": {},
    },
)
_SPEECH = {
    "conv_dim": [16, 16],
    "conv_stride": [5, 4],
    "conv_kernel": [10, 8],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 16,
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
    "apply_spec_augment": False,
}
AUDIO = [
    *_rows(
        "audio",
        "ForSequenceClassification",
        {
            "Data2VecAudio": {**_SPEECH, "conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2},
            "Hubert": _SPEECH,
            "SEW": {**_SPEECH, "squeeze_factor": 2},
            "UniSpeech": _SPEECH,
            "UniSpeechSat": {**_SPEECH, "xvector_output_dim": 16},
            "Wav2Vec2": _SPEECH,
            "Wav2Vec2Conformer": _SPEECH,
            "WavLM": {**_SPEECH, "num_buckets": 16, "max_bucket_distance": 16},
        },
    ),
    Row(
        *("Wav2Vec2BertForSequenceClassification", "Wav2Vec2BertConfig"),
        *("Wav2Vec2BertForSequenceClassification", "features"),
        {**_SPEECH, "feature_projection_input_dim": 16},
    ),
    Row(
        *("ASTForAudioClassification", "ASTConfig", "ASTForAudioClassification", "spectrogram"),
        {"max_length": 32, "num_mel_bins": 16, "patch_size": 8},
    ),
    Row(
        *("WhisperForAudioClassification", "WhisperConfig", "WhisperForAudioClassification"),
        *("mel", {"num_mel_bins": 16, "max_source_positions": 16, "classifier_proj_size": 16}),
    ),
    Row("Wav2Vec2ForCTC", "Wav2Vec2Config", "Wav2Vec2ForCTC", "audio", _SPEECH),
]
MODELS = {
    row.name: row for row in (*ENCODERS, *DECODERS, *CAUSAL, *SEQUENCE_TO_SEQUENCE, *VISION, *AUDIO)
}
