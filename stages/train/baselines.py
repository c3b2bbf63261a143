"""The loss terms of the baselines, as plain functions of a global batch's embeddings, like those of losses.py.

Each docstring is the formula as scalar loops; the tests are those loops. `share(x, options)` there means
exp(x) / sum(exp(option) for option in options).

Shapes: B images and captions, K negatives per caption, T types, U units of a caption, D embedding width.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - the name everyone uses
from torch import Tensor

from stages.train.losses import Embeddings, igc_loss, own_logits, to_negatives

MOST_THRESHOLD = 10.0
"""Largest threshold of the ranking term, in units of logits."""

NEAREST = 10
"""Captions that one keeps away from in FG-CLIP 2's text contrast."""

COPY = 0.95
"""Cosine similarity from which that contrast takes two captions for one."""


def clip_loss(student: Embeddings, scale: Tensor, smoothing: float = 0.0) -> Tensor:
    """CLIP's own loss: images against captions, both ways, the mean of the two; negatives take no part::

        loss = 0
        for i in range(B):
            texts = [scale * image[i] @ text[j] for j in range(B)]
            images = [scale * image[j] @ text[i] for j in range(B)]
            for j in range(B):
                label = smoothing / B + (1 - smoothing if j == i else 0)
                loss += -label * (log(share(texts[j], texts)) + log(share(images[j], images))) / B / 2

    Source: CLIP (arXiv 2103.00020). Fine-tuning by it alone is the baseline without negatives. With label smoothing 0.2
    it is GIFT's image-text alignment (arXiv 2503.04229), there on synthetic pairs.
    """
    logits_BB = scale * student.image_BD @ student.text_BD.T
    own_B = torch.arange(len(logits_BB), device=logits_BB.device)
    both = [F.cross_entropy(logits, own_B, label_smoothing=smoothing) for logits in (logits_BB, logits_BB.T)]
    return torch.stack(both).mean()


def rank_loss(student: Embeddings, scale: Tensor, threshold_T: Tensor) -> Tensor:
    """CE-CLIP's cross-modal rank: an image prefers its caption to each own negative by that type's threshold.

    Mean over all B * K places, those without a negative adding 0, as in its code::

        loss = 0
        for i in range(B):
            for k in range(K):
                if have[i][k]:
                    gap = scale * image[i] @ neg[i][k] - scale * image[i] @ text[i]
                    loss += max(0, threshold[type[i][k]] + gap) / (B * K)

    Source: CE-CLIP (arXiv 2306.08832), its adaptive threshold: see `rank_thresholds`.
    """
    if not student.neg_BKD.shape[1]:
        return scale.new_zeros(())
    own = own_logits(student.image_BD, student.text_BD, student.neg_BKD, student.have_BK, scale)
    gap_BK = torch.where(student.have_BK, own[:, 1:], 0) - own[:, :1]
    return (F.relu(threshold_T[student.type_BK.clamp(min=0)] + gap_BK) * student.have_BK).mean()


@torch.no_grad()
def rank_thresholds(student: Embeddings, scale: Tensor, threshold_T: Tensor) -> Tensor:
    """The ranking term's thresholds for the next step; a type that this batch lacks keeps its own::

        for t in types_in_the_batch:
            own = mean(scale * image[i] @ text[i] for i in range(B))
            theirs = mean(scale * image[i] @ neg[i][k] for i in range(B) for k in range(K) if type[i][k] == t)
            threshold[t] = min(max(own - theirs, 0), 10)

    Zero before the first step and at the start of each epoch. Source: CE-CLIP's released loss (threshold type "mean").
    """
    own = own_logits(student.image_BD, student.text_BD, student.neg_BKD, student.have_BK, scale)
    # Sums by matrix product: on a GPU bincount would add in another order each time. X = B * K.
    types_T = torch.arange(len(threshold_T), device=threshold_T.device)
    of_type_XT = (student.type_BK.flatten()[:, None] == types_T).double()
    count_T = of_type_XT.sum(dim=0)
    sum_T = torch.where(student.have_BK, own[:, 1:], 0).double().flatten() @ of_type_XT
    found_T = (own[:, 0].double().mean() - sum_T / count_T.clamp(min=1)).clamp(0, MOST_THRESHOLD)
    return torch.where(count_T > 0, found_T.to(threshold_T.dtype), threshold_T)


def intra_loss(student: Embeddings, scale: Tensor) -> Tensor:
    """CE-CLIP's intra-modal contrast: a caption keeps away from all negatives of the batch. Mean over captions::

        loss = 0
        for i in range(B):
            options = [scale * image[i] @ text[i]]
            options += [scale * text[i] @ neg[j][k] for j in range(B) for k in range(K) if have[j][k]]
            loss += -log(share(options[0], options)) / B

    Source: CE-CLIP's code from 31 January to 7 March 2024 (commits 7f4433a, 2d07821): the caption's own image is the
    positive. Before (June 2023) and from 8 March the label stands on a negative; from 27 March (47cef4e) there is no
    positive. Theirs masks missing negatives in the ranking term alone: here and in the base term the text that fills
    their place is an option, which ours leaves out.
    """
    positive_B1 = scale * (student.image_BD * student.text_BD).sum(dim=1, keepdim=True)
    logits = torch.cat([positive_B1, to_negatives(student.text_BD, student, scale)], dim=1)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device))


def focal_loss(student: Embeddings, scale: Tensor, gamma: float, smoothing: float) -> Tensor:
    """FSC-CLIP's global hard-negative term: image-grounded contrast, focal, with label smoothing.

    Mean over the images that have a negative, 0 without any::

        loss = 0
        rows = [i for i in range(B) if any(have[i])]
        for i in rows:
            options = [scale * image[i] @ text[i]] + [scale * image[i] @ neg[i][k] for k in range(K) if have[i][k]]
            for place, option in enumerate(options):
                label = smoothing / len(options) + (1 - smoothing if place == 0 else 0)
                p = share(option, options)
                loss += -label * (1 - p) ** gamma * log(p) / len(rows)

    Source: FSC-CLIP (arXiv 2410.05210), its selectively calibrated regularization; gamma 2, smoothing 0.02.
    """
    own = own_logits(student.image_BD, student.text_BD, student.neg_BKD, student.have_BK, scale)
    return _focal(own, student.have_BK, gamma, smoothing)


def local_loss(student: Embeddings, gamma: float, smoothing: float) -> Tensor:
    """FSC-CLIP's local hard-negative term: `focal_loss` of what patches and tokens say, `local_scores`::

        options = [local[i][0]] + [local[i][1 + k] for k in range(K) if have[i][k]]

    Source: FSC-CLIP (arXiv 2410.05210), its local hard-negative loss; gamma 2, smoothing 0.02.
    """
    own = student.local_BO.masked_fill(~F.pad(student.have_BK, (1, 0), value=True), -torch.inf)
    return _focal(own, student.have_BK, gamma, smoothing)


def local_scores(patch_NPD: Tensor, token_NLD: Tensor, said_NL: Tensor, scale: Tensor) -> Tensor:
    """`score_N`: how well the patches of an image fit the tokens of a text, for N texts beside their images' patches.

    A token gathers the patches that it is like; how like they are takes no gradient::

        for n in range(N):
            options = []
            for t in range(L):
                if said[n][t]:
                    like = [token[n][t] @ patch[n][p] for p in range(P)]
                    like = [(x - min(like)) / (max(like) - min(like)) for x in like]
                    seen = sum(x / sum(like) * patch[n][p] for p, x in enumerate(like))
                    options.append(scale * cosine(seen, token[n][t]))
            score[n] = log(sum(exp(x) for x in options))

    Source: FSC-CLIP (arXiv 2410.05210). Its code can also drop the patches that are like a token by less than 1 / P
    (SPARC's threshold); the commands it was trained with do not.
    """
    with torch.no_grad():
        like_NLP = token_NLD @ patch_NPD.mT
        low, high = like_NLP.amin(dim=-1, keepdim=True), like_NLP.amax(dim=-1, keepdim=True)
        # Patches that are all alike are all looked at.
        like_NLP = torch.where(high > low, (like_NLP - low) / (high - low), 1)
        like_NLP = like_NLP / like_NLP.sum(dim=-1, keepdim=True)
    logits_NL = scale * F.cosine_similarity(like_NLP @ patch_NPD, token_NLD, dim=-1)
    return logits_NL.masked_fill(~said_NL, -torch.inf).logsumexp(dim=1)


def _focal(own: Tensor, have_BK: Tensor, gamma: float, smoothing: float) -> Tensor:
    """The loss of `focal_loss` over logits [B, 1 + K], -inf where there is no negative."""
    there = F.pad(have_BK, (1, 0), value=True)
    rows_B = have_BK.any(dim=1)
    # Places without a negative: a finite value, because 0 * inf has no gradient.
    log_p = torch.where(there, torch.log_softmax(own, dim=1), 0)
    label = there.to(own.dtype) * smoothing / there.sum(dim=1, keepdim=True)
    label[:, 0] += 1 - smoothing
    loss_B = -(label * (1 - log_p.exp()).clamp(min=0) ** gamma * log_p).sum(dim=1)
    return (loss_B * rows_B).sum() / rows_B.sum().clamp(min=1)


def distractor_loss(student: Embeddings, scale: Tensor) -> Tensor:
    """CoN-CLIP's loss over images, captions, first negatives and the images those are about, all of the batch.

    With M = [i for i in range(B) if depicted[i]], the mean of three means::

        first = text and then neg[:, 0] of M;  second = neg[:, 0] of M and then text;  images = image, then other of M
        i2t = mean(-log(share(scale * image[i] @ text[i], [scale * image[i] @ t for t in first])) for i in range(B))
        t2i = mean(-log(share(scale * image[i] @ text[i], [scale * p @ text[i] for p in images])) for i in range(B))
        o2t = mean(-log(share(scale * other[i] @ neg[i][0], [scale * other[i] @ t for t in second])) for i in M)
        loss = (i2t + t2i + o2t) / 3      # o2t is 0 where M is empty

    Source: CoN-CLIP (arXiv 2403.20312).
    """
    there_B, neg_BD = student.depicted_B, _first_negatives(student)
    own_B = torch.arange(len(neg_BD), device=scale.device)

    def first(anchor_BD: Tensor, all_BD: Tensor, some_BD: Tensor) -> Tensor:
        return torch.cat([scale * anchor_BD @ all_BD.T, _only(there_B, scale * anchor_BD @ some_BD.T)], dim=1)

    i2t = F.cross_entropy(first(student.image_BD, student.text_BD, neg_BD), own_B)
    t2i = F.cross_entropy(first(student.text_BD, student.image_BD, student.other_BD), own_B)
    others = first(student.other_BD, student.text_BD, neg_BD)
    o2t = F.cross_entropy(others, own_B + len(own_B), reduction="none")
    return (i2t + t2i + _mean(o2t, there_B)) / 3


def triplet_loss(student: Embeddings, scale: Tensor) -> Tensor:
    """TripletCLIP's second half: NegCLIP's loss over the negatives' images, with the captions as negatives.

    With M as in `distractor_loss`; 0 where M is empty::

        n2t = t2n = 0
        for i in M:
            options = [scale * other[i] @ neg[j][0] for j in M] + [scale * other[i] @ text[j] for j in M]
            n2t += -log(share(scale * other[i] @ neg[i][0], options)) / len(M)
            t2n += -log(share(scale * other[i] @ neg[i][0], [scale * other[j] @ neg[i][0] for j in M])) / len(M)
        loss = (n2t + t2n) / 2

    The first half is the base term with one negative per caption. Source: TripletCLIP (arXiv 2411.02545).
    """
    there_B, other_BD = student.depicted_B, student.other_BD
    own_B = torch.arange(len(other_BD), device=scale.device)
    own_BB = scale * other_BD @ _first_negatives(student).T
    captions_BB = scale * other_BD @ student.text_BD.T
    options = torch.cat([_only(there_B, own_BB), _only(there_B, captions_BB)], dim=1)
    n2t = F.cross_entropy(options, own_B, reduction="none")
    t2n = F.cross_entropy(_only(there_B, own_BB.T), own_B, reduction="none")
    return (_mean(n2t, there_B) + _mean(t2n, there_B)) / 2


def align_loss(student: Embeddings, scale: Tensor) -> Tensor:
    """READ's paraphrase alignment: a paraphrase finds its caption among all captions of the batch.

    Mean over the captions that bring a paraphrase, 0 without any::

        loss = 0
        rows = [i for i in range(B) if rephrased[i]]
        for i in rows:
            options = [scale * para[i] @ text[j] for j in range(B)]
            loss += -log(share(options[i], options)) / len(rows)

    No batch holds two captions of one image, so no other caption is right as well. Source: READ-CLIP (arXiv
    2510.16540), its sentence-level alignment.
    """
    rows_B = student.rephrased_B
    logits_BB = scale * student.para_BD @ student.text_BD.T
    own_B = torch.arange(len(logits_BB), device=logits_BB.device)
    loss_B = F.cross_entropy(logits_BB, own_B, reduction="none")
    return (loss_B * rows_B).sum() / rows_B.sum().clamp(min=1)


def para_clip_loss(student: Embeddings, scale: Tensor) -> Tensor:
    """CLIP's own loss with a paraphrase in place of the caption, over the pairs that bring one; 0 without any::

        loss = 0
        rows = [i for i in range(B) if rephrased[i]]
        for i in rows:
            texts = [scale * image[i] @ para[j] for j in rows]
            images = [scale * image[j] @ para[i] for j in rows]
            mine = scale * image[i] @ para[i]
            loss += -(log(share(mine, texts)) + log(share(mine, images))) / len(rows) / 2

    Source: NegationCLIP (arXiv 2501.10913), whose captions also say what the image lacks: `train.paraphrases` absences.
    """
    rows_B = student.rephrased_B
    logits_BB = scale * student.image_BD @ student.para_BD.T
    own_B = torch.arange(len(logits_BB), device=logits_BB.device)
    both = [F.cross_entropy(_only(rows_B, each), own_B, reduction="none") for each in (logits_BB, logits_BB.T)]
    return torch.stack([_mean(each, rows_B) for each in both]).mean()


def unit_loss(student: Embeddings, scale: Tensor) -> Tensor:
    """CS-CLIP's loss over units: an image finds its own among those of the batch and one foil, a unit finds its image.

    Mean over the U places of a unit; of the captions those that have one there, 0 without any::

        loss = 0
        for u in range(U):
            rows = [i for i in range(B) if told[i][u]]
            for i in rows:
                mine = scale * image[i] @ unit[i][u]
                texts = [scale * image[i] @ unit[j][u] for j in rows] + [scale * image[i] @ foil[i][u]]
                images = [scale * image[j] @ unit[i][u] for j in rows]
                loss += -(log(share(mine, texts)) + log(share(mine, images))) / len(rows) / 2 / U

    Source: CS-CLIP (arXiv 2602.23906), its code ("negclip_hard", weight 0.5).
    """
    if not student.told_BU.shape[1]:
        return scale.new_zeros(())
    own_B = torch.arange(len(student.told_BU), device=scale.device)
    losses = []
    for unit_BD, foil_BD, there_B in zip(
        student.unit_BUD.unbind(dim=1), student.foil_BUD.unbind(dim=1), student.told_BU.unbind(dim=1), strict=True
    ):
        logits_BB = scale * student.image_BD @ unit_BD.T
        foil_B1 = scale * (student.image_BD * foil_BD).sum(dim=1, keepdim=True)
        texts = torch.cat([_only(there_B, logits_BB), foil_B1], dim=1)
        both = [F.cross_entropy(each, own_B, reduction="none") for each in (texts, _only(there_B, logits_BB.T))]
        losses += [_mean(each, there_B) for each in both]
    return torch.stack(losses).mean()


def clic_loss(student: Embeddings, scale: Tensor) -> Tensor:
    """CLIC's loss: of a joined batch, in which P further texts say the same; of any other one it is CLIP's own loss.

    With `clip` and `igc` the losses of `clip_loss` and `losses.igc_loss` in which those texts are the captions::

        told = [text] + [same[p] for p in range(P)]
        loss = sum(0.5 * clip(t) + 0.5 * igc(t) for t in told) / (P + 1)
        loss += sum((text[i][d] - same[0][i][d]) ** 2 for i in range(B) for d in range(D)) / B

    Source: CLIC (arXiv 2505.24424), its equation 7 with the weights of its code; batches of both kinds take turns.
    """
    if not student.same_BPD.shape[1]:
        return clip_loss(student, scale)
    told = [student._replace(text_BD=text_BD) for text_BD in (student.text_BD, *student.same_BPD.unbind(dim=1))]
    both = torch.stack([(clip_loss(one, scale) + igc_loss(one, scale)) / 2 for one in told]).mean()
    return both + (student.text_BD - student.same_BPD[:, 0]).square().sum(dim=1).mean()


def tic_loss(student: Embeddings) -> Tensor:
    """FG-CLIP 2's text contrast (TIC): a caption keeps away from the captions of the batch that are most like it.

    Mean over captions; itself and what is as good as a copy count as unlike, 0::

        loss = 0
        for i in range(B):
            like = [text[i] @ text[j] for j in range(B)]
            like = [0 if j == i or x > 0.95 else x for j, x in enumerate(like)]
            loss += log(sum(exp(x) for x in sorted(like)[-10:])) / B

    Source: FG-CLIP 2 (arXiv 2510.10921), weight 0.1; there of what describes regions of images, here of captions.
    """
    like_BB = student.text_BD @ student.text_BD.T
    itself_BB = torch.eye(len(like_BB), dtype=torch.bool, device=like_BB.device)
    like_BB = like_BB.masked_fill(itself_BB | (like_BB > COPY), 0)
    return like_BB.topk(min(NEAREST, len(like_BB)), dim=1).values.logsumexp(dim=1).mean()


def contrast_distill_loss(student: Embeddings, teacher: Embeddings, scale: Tensor, temperature: float) -> Tensor:
    """GIFT's contrastive distillation: the student's softmaxes over the batch follow the teacher's, both ways::

        loss = 0
        for i in range(B):
            for j in range(B):
                for mine, theirs, at, options in ((s, t, (i, j), [(i, x) for x in range(B)]),
                                                  (s, t, (j, i), [(x, i) for x in range(B)])):
                    p = share(theirs[at] / temperature, [theirs[o] / temperature for o in options])
                    q = share(mine[at] / temperature, [mine[o] / temperature for o in options])
                    loss += -(temperature ** 2) * p * log(q) / B
        # s[i, j] = scale * image[i] @ text[j]; t the same of the teacher's embeddings, with the student's scale

    Source: GIFT (arXiv 2503.04229), temperature 2, on our pairs instead of synthetic ones.
    """
    mine_BB = scale * student.image_BD @ student.text_BD.T / temperature
    theirs_BB = scale.detach() * teacher.image_BD @ teacher.text_BD.T / temperature
    both = [F.cross_entropy(m, t.softmax(dim=1)) for m, t in ((mine_BB, theirs_BB), (mine_BB.T, theirs_BB.T))]
    return temperature**2 * torch.stack(both).sum()


def fisher_loss(parameters: list[Tensor], start: list[Tensor], importance: list[Tensor]) -> Tensor:
    """GIFT's adaptive weight consolidation: squared distance from the start, each weight by its importance::

        loss = sum(f * (w - s) ** 2 for each tensor for w, s, f in zip(tensor, start, importance))

    Source: GIFT (arXiv 2503.04229); importance: see `fisher_importance`.
    """
    terms = [(f * (w - s).square()).sum() for w, s, f in zip(parameters, start, importance, strict=True)]
    return torch.stack(terms).sum()


def fisher_importance(gradients: list[Tensor]) -> list[Tensor]:
    """Squared gradients of the retention terms at this step, each tensor divided by its mean; 0 where all are 0."""
    squares = [gradient.square() for gradient in gradients]
    return [torch.where(mean > 0, square / mean, 0) for square in squares for mean in (square.mean(),)]


def _first_negatives(student: Embeddings) -> Tensor:
    """The negatives that the images of negatives show, [B, D]; zeros where there is none."""
    return student.neg_BKD[:, 0] if student.neg_BKD.shape[1] else torch.zeros_like(student.text_BD)


def _only(there_B: Tensor, logits_AB: Tensor) -> Tensor:
    """Logits of which only some columns are options."""
    return logits_AB.masked_fill(~there_B, -torch.inf)


def _mean(loss_B: Tensor, there_B: Tensor) -> Tensor:
    """Mean over the rows there are, 0 without any. The others may be infinite: no gradient comes through `where`."""
    return torch.where(there_B, loss_B, 0).sum() / there_B.sum().clamp(min=1)
