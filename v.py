exec(open("/tmp/break/f.py").read().split("# all faults at once")[0].replace("/tmp/break/f\"","/tmp/break/v\""))
# VOC palettes
def voc():
    p=[]
    for i in range(256):
        r=g=b=0; c=i
        for j in range(8): r|=((c>>0)&1)<<7-j; g|=((c>>1)&1)<<7-j; b|=((c>>2)&1)<<7-j; c>>=3
        p+=[r,g,b]
    return p
OBJ=np.hypot(Y-15,X-20)<9; edge=OBJ^np.roll(OBJ,1,0)
for cl in range(1,21):
    a=np.where(edge,255,np.where(OBJ,cl,0)).astype(np.uint8); im=Image.fromarray(a,"P"); im.putpalette(voc()); im.save(T/"x.png")
    go(f"VOC class {cl}+void", lambda: (lambda m:(m.kind, round(float((m.object&OBJ).sum()/(m.object|OBJ).sum()),2)))(read_mask(T/"x.png")))
for used in ([0,1,2],[0,5],[7],[15],[255],[0,255],[1,15],[5,15,0]):
    a=np.resize(np.repeat(used,40),(32,40)).astype(np.uint8); im=Image.fromarray(a,"P"); im.putpalette(voc()); im.save(T/"x.png")
    go(f"VOC indices {used}", lambda: (lambda m:(m.kind, m.object.mean(), np.unique(a[m.object])))(read_mask(T/"x.png")))
# viridis two-colour palette, empty mask
pal=[68,1,84,253,231,36]
for a in (OBJ,OBJ*0,OBJ|True):
    im=Image.fromarray(a.astype(np.uint8),"P"); im.putpalette(pal); im.save(T/"x.png"); print("viridis", a.mean(), read_mask(T/"x.png").object.mean())
# black & white palette
for bits in (2,4):
    im=Image.fromarray(OBJ.astype(np.uint8),"P"); im.putpalette([0,0,0,255,255,255]); im.save(T/"x.png",bits=bits); print("P bits",bits,read_mask(T/"x.png").kind)
# 3-colour GIF palette
im=Image.fromarray(np.where(edge,2,OBJ).astype(np.uint8),"P"); im.putpalette([0,0,0,255,255,255,255,0,0]); im.save(T/"x.png"); go("P black white red", lambda: read_mask(T/"x.png").kind)
# grey 2-, 4-bit PNG by hand
import zlib
def gpng(a,bits):
    h,w=a.shape; rows=b""
    for r in a:
        v="".join(format(int(x),f"0{bits}b") for x in r); v+="0"*(-len(v)%8); rows+=b"\0"+int(v,2).to_bytes(len(v)//8,"big")
    ch=lambda t,c: struct.pack(">I",len(c))+t+c+struct.pack(">I",zlib.crc32(t+c))
    return b"\x89PNG\r\n\x1a\n"+ch(b"IHDR",struct.pack(">IIBBBBB",w,h,bits,0,0,0,0))+ch(b"IDAT",zlib.compress(rows))+ch(b"IEND",b"")
for bits in (1,2,4):
    for v in {1,2**bits-1}:
        (T/"x.png").write_bytes(gpng(OBJ*v,bits)); m=read_mask(T/"x.png"); print("grey png",bits,v,m.kind,(m.object==OBJ).all()); 
(T/"x.png").write_bytes(gpng(np.where(edge,3,OBJ),2)); m=read_mask(T/"x.png"); print("2bit 0/1/3",m.kind,m.object.mean())
# folder-level: floats
d=T/"fl"; d.mkdir(); Image.fromarray((OBJ*200).astype(np.float32)).save(d/"a.tif"); Image.fromarray((OBJ*0.9).astype(np.float32)).save(d/"b.tif")
print("float folder", {k:int(v.max()) for k,v in read_maps(d,["a","b"])[0].items()}, read_maps(d,["a","b"])[1])
d=T/"pf"; d.mkdir(); g=np.repeat(np.arange(256),3).tolist()
for n,a in (("a",np.clip(X*6,0,255)),("b",OBJ*3),("c",OBJ*0+40)):
    im=Image.fromarray(a.astype(np.uint8),"P"); im.putpalette(g); im.save(d/f"{n}.png")
print("grey palette folder", {k:int(v.max()) for k,v in read_maps(d,list("abc"))[0].items()}, read_maps(d,list("abc"))[1])
# 0/1 folder: one map empty: fine; 0/1 with lossy
# photographs
for n,im in (("LA",Image.new("LA",(4,4),(100,128))),("RGBA0",Image.new("RGBA",(4,4),(10,20,30,0))),("I16 12bit",Image.fromarray(np.full((4,4),4095,np.uint16))),("P",im)):
    im.save(T/"y.png"); r=read_photograph(T/"y.png"); print("photo",n,r.pixels.getpixel((0,0)),r.alpha is not None)
# 16-bit RGB PNG 
def p16(rgb):
    ch=lambda t,c: struct.pack(">I",len(c))+t+c+struct.pack(">I",zlib.crc32(t+c)); h,w,_=rgb.shape
    raw=b"".join(b"\0"+r.astype(">u2").tobytes() for r in rgb)
    return b"\x89PNG\r\n\x1a\n"+ch(b"IHDR",struct.pack(">IIBBBBB",w,h,16,2,0,0,0))+ch(b"IDAT",zlib.compress(raw))+ch(b"IEND",b"")
(T/"x.png").write_bytes(p16(np.dstack([OBJ*65535]*3))); print("rgb16",read_mask(T/"x.png").kind); (T/"x.png").write_bytes(p16(np.dstack([OBJ*255]*3))); print("rgb16/255",read_mask(T/"x.png")[2], read_mask(T/"x.png").object.mean())
for n in ("tiled",):
    pass
# animated masks with different first frame
Image.new("L",(8,8),0).save(T/"x.tif",save_all=True,append_images=[Image.new("L",(8,8),255)]); m=read_mask(T/"x.tif"); print("multipage mask", m.kind, m.object.mean(), mask_notes({"x":m.kind}))
