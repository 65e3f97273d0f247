# Learning rates that fall by a fifth from stage to stage towards the stem,
# for detectors and segmenters with a FishNet whose four features are used:
#
#     optim_wrapper = dict(paramwise_cfg=_base_.layer_decay)
#
# They are those that MMPretrain's LearningRateDecayOptimWrapperConstructor
# gives a classifier, which asks the model for a parameter's layer.
# MMDetection's own constructor knows ConvNeXt's names alone. Weight decay is
# everywhere the same, as in the paper.
layer_decay = dict(
    custom_keys={
        f'backbone.{name}.': dict(lr_mult=0.8**(11 - layer))
        for layer, name in enumerate(
            ('stem', 'tail1', 'tail2', 'tail3', 'bridge', 'body1', 'body2',
             'body3', 'head1', 'head2', 'head3'))
    })
