"""Measures of edits as pure functions of tensors, pictures and encoders; the nodes of `score` and `judge` call them.

pixels      from pictures to tensors: ranges, resizing, masks, the preprocessing of official scripts
similarity  L1, L2, PSNR, SSIM
perceptual  LPIPS
joint       cosines in the space of a CLIP: CLIP-T, CLIP-I, CLIPScore, both directions, S-Visual
vit         embeddings and keys of a self-supervised ViT: DINO-I, structure distance
inception   the Inception of FID and how pictures reach it
sets        FID and KID over features, in constant memory
judge       questions for a vision-language model that judges, and strict reading of its answers
catalogue   every score's unit, direction, range, definition and source
record      scores with everything that is needed to compare them
"""
