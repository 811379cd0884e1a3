"""Where the images come from, and under which license: the credit that every category carries."""

ELPV_LICENSE = (
    "ELPV solar cells (Deitsch et al. 2019; Buerhop-Lutz et al. 2018), CC BY-NC-SA 4.0, "
    "from the elpv-dataset package"
)
# Data sets that `patchcore-course prepare` puts below the data folder.
PREPARED = {
    "mvtec_ad": "MVTec AD (Bergmann et al. 2019, 2021), CC BY-NC-SA 4.0, from mvtec.com",
    "visa": "VisA (Zou et al. 2022), CC BY 4.0, from github.com/amazon-science/spot-diff",
    "aitex": "AITEX fabric images (Silvestre-Blanes et al. 2019), terms at aitex.es/afid",
}
