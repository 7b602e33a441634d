import numpy as np
from reference_models.measures.saliency import measure
for s in ((3,3),(2,2),(4,4),(2,3),(1,2),(16,16)):
    k=np.zeros(s,bool); k.flat[:max(1,k.size//3)]=True
    print(s, {a:round(float(b),4) for a,b in measure([(255*k).astype(np.uint8)],[k],exact=True).items()})
